"""What is kept of the inputs of a layer, and what may be said from it."""
