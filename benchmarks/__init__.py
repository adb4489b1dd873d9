"""Benchmarks: the rendered world, and what is measured on it."""
