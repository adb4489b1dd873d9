"""Every kernel compiled for A100 and H100, and what the machine code must and must not contain."""

from dataclasses import replace

import pytest
import torch

from benchmarks.kernels.compilation import SHARED_BYTES, compiled
from benchmarks.kernels.launches import ELEMENT_LAUNCHES, MATRIX_LAUNCHES, attention
from detex_generator.ops.triton_kernels.launch import Launch

pytestmark = pytest.mark.slow

ON_A100 = [
    "cross, head dim 40, all",
    "cross, head dim 80, all",
    "cross, head dim 160, joint",
    "cross, head dim 160, all",
    "self, head dim 40",
    "self, head dim 80",
    "geglu, width 1280",
]
"""The launches that come closest to the limits of compute capability 8.0; the others are compiled for 9.0 alone."""

NARROW_LOADS = r"LDG.*\.[US]16"


@pytest.mark.parametrize(
    ("launch", "capability"),
    [(launch, 90) for launch in MATRIX_LAUNCHES.values()] + [(MATRIX_LAUNCHES[name], 80) for name in ON_A100],
    ids=[f"{name}, sm_90" for name in MATRIX_LAUNCHES] + [f"{name}, sm_80" for name in ON_A100],
)
def test_matrix_kernels(launch: Launch, capability: int) -> None:
    found = compiled(launch, capability)
    assert found.spill_bytes == 0
    assert found.shared_bytes <= SHARED_BYTES[capability]
    assert found.count(NARROW_LOADS) == 0
    assert found.count(r"LDGSTS\.E\.BYPASS\.128") > 0
    # The tensor cores of a generation are used by the instructions of that generation.
    assert (found.count("HGMMA") > 0) == (capability == 90)
    assert (found.count("HMMA") > 0) == (capability == 80)


@pytest.mark.parametrize("launch", ELEMENT_LAUNCHES.values(), ids=ELEMENT_LAUNCHES.keys())
def test_other_kernels(launch: Launch) -> None:
    found = compiled(launch, 90)
    assert found.spill_bytes == 0
    assert found.shared_bytes <= SHARED_BYTES[90]
    assert found.count(NARROW_LOADS) == 0


def test_the_assertions_bite() -> None:
    """A head dim that leaves rows unaligned falls to narrow loads, and the tests above would see it."""
    narrow = attention(1024, 3, 41)
    assert compiled(narrow, 90).count(NARROW_LOADS) > 0


def test_registers_that_do_not_fit_are_seen() -> None:
    crowded = replace(MATRIX_LAUNCHES["self, head dim 80"], warps=1)
    assert compiled(crowded, 80).spill_bytes > 0


def test_launches_of_meta_tensors_cover_every_type() -> None:
    types = {tensor.dtype for launch in MATRIX_LAUNCHES.values() for tensor in launch.tensors.values()}
    assert {torch.float16, torch.bfloat16, torch.float32, torch.int32, torch.int8} <= types
