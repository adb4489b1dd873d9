"""The base models that the trainer trains on, described without being loaded."""

from detex_trainer.base_models.catalogue import BaseModelCatalogue
from detex_trainer.base_models.description import BaseModelDescription

__all__ = ["BaseModelCatalogue", "BaseModelDescription"]
