"""The network as it computes."""
