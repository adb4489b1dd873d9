"""What computes an operation is decided from settings and device, and never in silence."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detex_core.errors import InvalidInputError
from detex_generator.ops import availability
from detex_generator.ops.choice import PREFERENCES, KernelChoice
from detex_generator.ops.geglu import geglu
from detex_generator.ops.group_norm_silu import group_norm_silu
from detex_generator.ops.guided_solver_step import guided_solver_step
from detex_generator.ops.kernel_setting import parse_kernels
from detex_generator.ops.operation import Implementation, KernelUnavailableError, Operation
from detex_generator.ops.segmented_attention import PageLayout, segmented_attention
from detex_generator.ops.self_attention import self_attention

CPU, GPU = torch.device("cpu"), torch.device("cuda")
TORCH, TRITON = Implementation.TORCH, Implementation.TRITON


@pytest.fixture
def h100(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decisions as they are taken beside a GPU; none is computed on it."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))


@given(st.dictionaries(st.sampled_from(list(Operation)), st.sampled_from([*Implementation, None]), min_size=1))
def test_lists_are_read(asked: dict[Operation, Implementation | None]) -> None:
    text = " , ".join(f"{operation.value}={'auto' if how is None else how.value}" for operation, how in asked.items())
    assert parse_kernels(text) == {operation: how for operation, how in asked.items() if how is not None}


@pytest.mark.parametrize(
    "text",
    ["", "cuda", "geglu", "geglu=", "geglu=cudnn", "softmax=triton", "geglu=torch,geglu=triton", "triton,torch", "="],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"kernels: must be auto, torch, triton, or a list .*, got '"):
        parse_kernels(text)


@pytest.mark.parametrize("interpret", ["0", "1"])
def test_cpus_take_torch(monkeypatch: pytest.MonkeyPatch, interpret: str) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", interpret)
    choice = KernelChoice("auto", CPU, torch.float32)
    assert {choice.take(operation, head_dim=40) for operation in Operation} == {TORCH}
    assert "segmented_attention by torch (kernels run on NVIDIA GPUs, and the device is cpu)" in choice.describe()


@pytest.mark.parametrize("text", ["triton", "geglu=triton"])
def test_what_is_asked_for_and_cannot_run_is_an_error(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(KernelUnavailableError, match="cannot use triton: they run on NVIDIA GPUs"):
        KernelChoice(text, CPU, torch.float32)


@pytest.mark.usefixtures("h100")
def test_auto_follows_the_preferences_on_a_gpu() -> None:
    choice = KernelChoice("auto", GPU, torch.float16)
    assert {op: choice.take(op, head_dim=40) for op in Operation} == {op: how for op, (how, _) in PREFERENCES.items()}
    assert KernelChoice("auto", GPU, torch.float32).take(Operation.GUIDED_SOLVER_STEP) is TORCH


@pytest.mark.usefixtures("h100")
def test_a_list_overrides_what_it_names() -> None:
    choice = KernelChoice("self_attention=triton, segmented_attention=torch", GPU, torch.bfloat16)
    assert choice.uses(Operation.SELF_ATTENTION)
    assert not choice.uses(Operation.SEGMENTED_ATTENTION)
    assert choice.uses(Operation.GUIDED_SOLVER_STEP)
    choice.take(Operation.SELF_ATTENTION, head_dim=80)
    choice.take(Operation.SELF_ATTENTION, head_dim=40)
    choice.take(Operation.GEGLU)
    assert choice.taken() == {(Operation.SELF_ATTENTION, TRITON): 2, (Operation.GEGLU, TRITON): 1}


@pytest.mark.usefixtures("h100")
def test_head_dims_beyond_the_kernel_are_an_error() -> None:
    with pytest.raises(KernelUnavailableError, match="given is 512"):
        KernelChoice("triton", GPU, torch.float16).take(Operation.SELF_ATTENTION, head_dim=512)


def test_obstacles_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "7.5, and they need 8.0" in str(availability.why_unavailable(GPU, torch.float16))
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert availability.why_unavailable(CPU, torch.float16) is None
    assert "does not compute torch.bfloat16" in str(availability.why_unavailable(CPU, torch.bfloat16))
    monkeypatch.setattr(availability, "find_spec", lambda name: None)
    assert availability.why_unavailable(CPU, torch.float16) == "Triton is not installed"


def test_operators_refuse_what_their_kernel_cannot_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the reference taken in its place, tests of parity would compare it with itself."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    heads, pool, picture = torch.ones(1, 4, 2, 8), torch.ones(3, 2, 8), torch.ones(1, 8, 2, 2)
    channels, layout = torch.ones(8), PageLayout.of_rows([[(0, 3, 0)]], [True])
    scale, row = torch.ones(1), torch.zeros(1, dtype=torch.int32)
    for call in (
        lambda: self_attention(heads, heads, heads, TRITON),
        lambda: segmented_attention(heads, pool, pool, layout, None, TRITON),
        lambda: geglu(torch.ones(2, 8), torch.ones(16, 8), None, TRITON),
        lambda: group_norm_silu(picture, channels, channels, 2, 1e-5, TRITON),
        lambda: guided_solver_step(torch.ones(1, 9), picture, picture, row, scale, picture, TRITON),
    ):
        with pytest.raises(KernelUnavailableError, match="cannot run: they run on NVIDIA GPUs"):
            call()


def test_operators_know_shapes_without_computing() -> None:
    """What `torch.compile` and exporters ask of an operator: the fake of each gives what the reference gives."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        query, pool = torch.ones(2, 6, 3, 40, dtype=torch.float16), torch.ones(9, 3, 40, dtype=torch.float16)
        starts = torch.ones(2, 1, dtype=torch.int32)
        output, sums = torch.ops.detex.segmented_attention(
            query, pool, pool, starts, starts, starts, None, torch.ones(2, dtype=torch.bool), 4, False, True
        )
        assert (output.shape, output.dtype, sums.shape, sums.dtype) == (
            query.shape, torch.float16, (2, 3, 4, 6), torch.float32
        )  # fmt: skip
        assert torch.ops.detex.self_attention(query, query, query).shape == query.shape
        assert torch.ops.detex.geglu(torch.ones(2, 5, 8), torch.ones(32, 8), None).shape == (2, 5, 16)
        picture = torch.ones(2, 8, 3, 5)
        active = torch.ops.detex.group_norm_silu(picture, torch.ones(8), torch.ones(8), 2, 1e-5)
        assert active.shape == picture.shape
        assert active.is_contiguous(memory_format=torch.channels_last)
        rows = torch.ones(2, dtype=torch.int32)
        step = torch.ops.detex.guided_solver_step(torch.ones(2, 9), picture, picture.half(), rows, rows, picture)
        assert [(part.shape, part.dtype) for part in step] == [(picture.shape, torch.float32)] * 2


def test_nothing_imports_triton_before_a_kernel_is_taken() -> None:
    code = (
        "import sys\n"
        "import detex_generator.compute.pooled_key_values, detex_generator.ops.geglu\n"
        "import detex_generator.ops.group_norm_silu, detex_generator.ops.guided_solver_step\n"
        "import detex_generator.ops.self_attention\n"
        "assert 'detex_generator.ops.triton_kernels' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)
