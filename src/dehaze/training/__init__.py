"""Training: recipes, tasks, the loop, and checkpoints that resume exactly."""
