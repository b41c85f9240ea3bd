"""SMAC3's random-forest optimizer as an Optuna sampler."""

from __future__ import annotations

from .sampler import SMACSampler


__all__ = ["SMACSampler"]
