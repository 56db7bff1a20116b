"""What is counted, logged, sampled and compared while serving."""
