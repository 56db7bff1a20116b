"""The mathematics of rounding weights and activations."""
