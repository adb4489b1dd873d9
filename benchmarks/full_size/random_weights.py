"""Models of random weights, filled tensor by tensor in their final type: no copy in float32 is ever there."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

_Model = TypeVar("_Model", bound=nn.Module)


def random_model(
    build: Callable[[], _Model], device: torch.device, dtype: torch.dtype, generator: torch.Generator
) -> _Model:
    """A model with weights of the size that training begins with: variance 1 / inputs, norms 1, biases 0.

    Args:
        build: Makes the model; called on the meta device.
        device: Where it goes.
        dtype: Of its weights.
        generator: Of that device.
    """
    with torch.device("meta"):
        model = build()
    model = model.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2:
            inputs = parameter[0].numel()
            parameter.normal_(0.0, inputs**-0.5, generator=generator)
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    return model
