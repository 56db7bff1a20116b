"""Between text and token ids: prompts in, answers out."""
