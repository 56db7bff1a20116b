"""One decoder block after another."""
