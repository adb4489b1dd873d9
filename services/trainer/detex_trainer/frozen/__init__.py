"""Parts of a base model that stay as they are, on CPUs: faster passes, and gradients where they are needed alone."""

from detex_trainer.frozen.layers import FrozenConvolution, FrozenLinear
from detex_trainer.frozen.model import freeze_base_model, freeze_layers

__all__ = ["FrozenConvolution", "FrozenLinear", "freeze_base_model", "freeze_layers"]
