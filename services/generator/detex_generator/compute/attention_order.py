"""Which library computes scaled dot-product attention where several can."""

import threading
from contextlib import ExitStack

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

FASTEST_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
"""cuDNN's takes the head dims of Stable Diffusion without filling them up, and was measured to be the fastest there."""

_lock = threading.Lock()
_kept = ExitStack()
_taken = False


def take_fastest_attention(device: torch.device) -> None:
    """Give attention on a GPU to the fastest library that can compute it, in this process from now on.

    For good, and not for as long as a step is captured or compiled: the order is one of the whole process, so that
    threads which set and restore it take it from one another. Torch also sets its own order for a GPU when it is first
    asked for an attention, and what was saved before that would be restored over it.
    """
    global _taken
    with _lock:
        if device.type == "cuda" and not _taken:
            _kept.enter_context(sdpa_kernel(FASTEST_FIRST, set_priority=True))
            _taken = True
