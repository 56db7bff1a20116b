"""From graded answers to a verdict."""
