"""Training a concept, from photos to published artifact."""

from detex_trainer.learning.training.concept_training import train_concept

__all__ = ["train_concept"]
