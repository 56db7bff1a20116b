"""A model block by block: weights in, hidden states on."""
