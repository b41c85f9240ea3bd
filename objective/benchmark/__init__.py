"""Tune the training script of a small language model, in a millisecond or for real."""

from .problem import Problem
from .problem import TrainingProblem


__all__ = ["Problem", "TrainingProblem"]
