"""What serving programs can load: their rules as one table, and the layers of a checkpoint held against it."""
