"""Best value so far of several studies: the mean of each group and its interval."""

from .plot import plot_best_so_far


__all__ = ["plot_best_so_far"]
