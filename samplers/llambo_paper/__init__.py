from .sampler import LLAMBOSampler


__all__ = ["LLAMBOSampler"]
