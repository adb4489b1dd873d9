"""The photos of one subject: upload, checks, storage."""

from detex_trainer.training_set.record import MaskSource, PhotoRecord, TrainingSetRecord
from detex_trainer.training_set.training_set import TrainingPhoto, TrainingSet

__all__ = ["MaskSource", "PhotoRecord", "TrainingPhoto", "TrainingSet", "TrainingSetRecord"]
