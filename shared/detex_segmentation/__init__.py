"""Masks of real photos by a salient-object model; no torch, and onnxruntime only where a model runs."""

from detex_segmentation.box import Box
from detex_segmentation.model_store import InstalledModel, ModelStore, Normalization
from detex_segmentation.salient_object import SalientObjectSegmenter, SubjectNotFoundError

__all__ = ["Box", "InstalledModel", "ModelStore", "Normalization", "SalientObjectSegmenter", "SubjectNotFoundError"]
