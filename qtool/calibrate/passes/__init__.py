"""Running the set through the model, in one pass or in shards."""
