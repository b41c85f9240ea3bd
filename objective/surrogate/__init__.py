"""A model of stored trials that answers in a training's place."""
