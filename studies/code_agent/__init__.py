"""A language model edits the training script; what it measures decides what is kept."""
