"""Tasks and sample logs of lm-evaluation-harness."""
