"""The code agent: a language model edits the training script, and measurements decide."""
