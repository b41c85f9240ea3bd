from .sampler import CentaurSampler


__all__ = ["CentaurSampler"]
