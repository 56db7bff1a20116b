"""Tasks and their items: files, prompts, the answer cut out of a completion."""
