"""Memory that tensors give back stays with the process, unless the environment chooses otherwise."""

import platform
import subprocess
import sys

import pytest

from detex_generator.compute.memory_allocator import keep_freed_memory

# Takes and gives back three times 30 MiB twenty times, and prints the page faults that this caused.
FAULTS = """
import ctypes, resource, sys
from detex_generator.compute.memory_allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory({})
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes = [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
def turn():
    blocks = [library.malloc(30 << 20) for _ in range(3)]
    for block in blocks:
        ctypes.memset(block, 1, 30 << 20)
    for block in blocks:
        library.free(block)
for _ in range(3):
    turn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    turn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_freed_memory_is_used_again() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return int(done.stdout)

    assert faults("keep") < 1000 < faults("leave")


@pytest.mark.parametrize("variable", ["GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "LD_PRELOAD"])
def test_a_choice_of_the_environment_stands(variable: str) -> None:
    assert not keep_freed_memory({variable: "1"})
