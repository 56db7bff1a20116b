"""What is asked for: recipe, layers, budget, cost."""
