"""Whether Triton kernels can run on a device."""

import os
from importlib.util import find_spec

import torch

from detex_generator.ops.operation import KernelUnavailableError, Operation

LEAST_CAPABILITY = (8, 0)
"""Compute capability of the oldest GPUs that the kernels are compiled for in tests (A100)."""

_COMPILED_DTYPES = (torch.float16, torch.bfloat16)
_INTERPRETED_DTYPES = (torch.float16, torch.float32)  # the interpreter multiplies bfloat16 wrongly without a word


def interpreted() -> bool:
    """Whether Triton interprets kernels on the CPU (`TRITON_INTERPRET=1`): for tests, thousands of times slower."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def why_unavailable(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why Triton kernels cannot compute tensors of this device and type, or None where they can."""
    if find_spec("triton") is None:
        return "Triton is not installed"
    if device.type == "cpu" and interpreted():
        return None if dtype in _INTERPRETED_DTYPES else f"Triton's interpreter does not compute {dtype} correctly"
    if device.type != "cuda":
        return f"they run on NVIDIA GPUs, and the device is {device.type}"
    if torch.version.hip is not None:
        return "they are compiled for NVIDIA GPUs only"
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        return f"the GPU has compute capability {capability[0]}.{capability[1]}, and they need 8.0"
    if dtype not in _COMPILED_DTYPES:
        return f"they compute float16 and bfloat16, and the type is {dtype}"
    return None


def check_available(operation: Operation, tensor: torch.Tensor) -> None:
    """Refuse to run where the kernel cannot.

    Raises:
        KernelUnavailableError: It cannot compute tensors like this one.
    """
    reason = why_unavailable(tensor.device, tensor.dtype)
    if reason is not None:
        raise KernelUnavailableError(f"The Triton kernel of {operation.value} cannot run: {reason}.")
