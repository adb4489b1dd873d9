"""Tests that need Triton's interpreter run in a process of their own, for it is chosen when Triton is imported."""

from detex_generator.kernels.availability import interpreted

collect_ignore = [] if interpreted() else ["interpreted"]
