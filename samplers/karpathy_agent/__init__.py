from .sampler import KarpathyAgentSampler


__all__ = ["KarpathyAgentSampler"]
