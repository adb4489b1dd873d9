"""Stable Diffusion that reads concepts through precomputed cross-attention keys and values."""
