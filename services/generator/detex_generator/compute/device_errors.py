"""What errors of torch say of memory and of the device."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory has run out, on the host or on a GPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError)


def spoils_device(error: BaseException) -> bool:
    """Whether nothing that this process asks of its GPU can succeed any more, whoever asks."""
    return not is_out_of_memory(error) and (isinstance(error, torch.AcceleratorError) or "CUDA error" in str(error))
