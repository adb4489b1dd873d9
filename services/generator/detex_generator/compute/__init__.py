"""Denoising steps of a batch: kernels put into models, graphs, compilation, lanes of a CPU."""
