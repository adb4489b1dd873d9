"""Data that ships with detex: the embedded base model, and sample subjects to try it on.

Importing the package imports no machine-learning library.
"""

from detex_showroom.assets import AssetMissingError, SamplePhoto, SampleSubject, base_model_path, sample_subjects

__all__ = ["AssetMissingError", "SamplePhoto", "SampleSubject", "base_model_path", "sample_subjects"]
