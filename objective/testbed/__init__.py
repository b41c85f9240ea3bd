"""A folder with a training script: its constants, its search space, its rule."""
