"""Kernels in Triton, each with the function that plans its launch. Importing one imports Triton."""
