"""Which library computes scaled dot-product attention where several can."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

FASTEST_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
"""cuDNN's takes the head dims of Stable Diffusion without filling them up, and was measured to be the fastest there."""


@contextmanager
def best_attention_first(device: torch.device) -> Iterator[None]:
    """Take the fastest library that can compute an attention, on a GPU; a setting of the process while it lasts.

    What is compiled or captured meanwhile keeps to it.
    """
    if device.type != "cuda":
        yield
        return
    with sdpa_kernel(FASTEST_FIRST, set_priority=True):
        yield
