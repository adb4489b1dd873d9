"""How the C library hands memory out in a process that computes pictures on a CPU."""

import ctypes
import os
from collections.abc import Mapping

# Parameters of glibc's mallopt.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3

_TRIM_BYTES = 256 * 1024**2
_MMAP_BYTES = 32 * 1024**2
_CHOSEN_BY_ENVIRONMENT = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "LD_PRELOAD")


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Let glibc keep what tensors give back for the next ones.

    As it comes, it gives larger pieces back to the system at once and gets them again page by page: of a UNet pass over
    16 rows that is a sixth of the time (5,800 page faults in 55 ms, against none in 46 ms). Up to 256 MiB stay with the
    process instead.

    Args:
        environment: Where it chooses an allocator or its thresholds, that choice stands.

    Returns:
        Whether it was done; not so with other C libraries.
    """
    if any(environment.get(name) for name in _CHOSEN_BY_ENVIRONMENT):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    done = [mallopt(_MMAP_THRESHOLD, _MMAP_BYTES), mallopt(_TRIM_THRESHOLD, _TRIM_BYTES)]
    return all(done)
