"""Comparison of samplers on benchmarks that anybody can install."""
