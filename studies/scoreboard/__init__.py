"""Samplers against each other on benchmarks that anybody can install."""
