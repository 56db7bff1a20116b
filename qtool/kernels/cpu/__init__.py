"""Products on the processor, compiled and packed."""
