"""Questions put to a model, and what the baseline's own answers are worth."""
