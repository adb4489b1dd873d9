"""Packed layers compute what plain ones do, and follow their parameters."""

import copy
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_diffusion.conditioning import KeyValueBatch, key_values
from detex_diffusion.latents import decode_latents
from detex_diffusion.unet import KeyValueUNet
from detex_generator.compute import packed_layers
from detex_generator.compute.packed_attention import PackedAttention, pack_attention
from detex_generator.compute.packed_layers import (
    ROW_BLOCK,
    ROW_PIECE,
    PackedConvolution,
    PackedLinear,
    RowCounts,
    WideGroupNorm,
    pack,
    pack_base_model,
)


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


TOLERANCE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


@settings(deadline=None, max_examples=40)
@given(
    rows=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    bias=st.booleans(),
)
def test_linear_layers(rows: list[int], sizes: tuple[int, int], bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(*sizes, bias=bias)
    assert pack(layer) == 1
    assert isinstance(layer, PackedLinear)
    with torch.inference_mode():
        for shape in (rows, rows[::-1]):
            given_rows = torch.randn(*shape, sizes[0])
            expected = functional.linear(given_rows, layer.weight, layer.bias)
            torch.testing.assert_close(layer(given_rows), expected, **TOLERANCE)


@settings(deadline=None, max_examples=40)
@given(rows=st.lists(st.integers(1, 3 * ROW_PIECE), min_size=1, max_size=4), bias=st.booleans())
def test_linear_layers_compute_the_same_for_numbers_of_rows_that_are_not_kept(
    monkeypatch_module: pytest.MonkeyPatch, rows: list[int], bias: bool
) -> None:
    counts = RowCounts(most=1)
    monkeypatch_module.setattr(packed_layers, "ROW_COUNTS", counts)
    layer = nn.Linear(5, 7, bias=bias)
    pack(layer)
    with torch.inference_mode():
        for number in rows:
            given_rows = torch.randn(1, number, 5)
            expected = functional.linear(given_rows, layer.weight, layer.bias)
            torch.testing.assert_close(layer(given_rows), expected, **TOLERANCE)
    assert len(counts) <= 1


@given(asked=st.lists(st.integers(1, 4 * ROW_PIECE)), most=st.integers(0, 8))
def test_few_numbers_of_rows_are_taken_as_they_are(asked: list[int], most: int) -> None:
    counts = RowCounts(most)
    admitted = {rows for rows in asked if counts.admit(rows)}
    assert len(counts) <= most
    assert len(admitted) <= most + ROW_PIECE // ROW_BLOCK
    assert all(counts.admit(rows) for rows in admitted)
    assert all(counts.admit(rows) for rows in range(ROW_BLOCK, ROW_PIECE + 1, ROW_BLOCK))


def test_memory_does_not_grow_with_the_numbers_of_rows_that_were_seen() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GROWTH_OVER_ROW_COUNTS], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    if done.stdout.strip() == "unknown":
        pytest.skip("this C library does not tell what is in use")
    # A quarter of a MiB and more for each of 200, where all were kept.
    assert float(done.stdout) < 8


GROWTH_OVER_ROW_COUNTS = """
import ctypes
import torch
from detex_generator.compute.packed_layers import MOST_ROW_COUNTS, pack


class InUse(ctypes.Structure):
    _fields_ = [(str(index), ctypes.c_size_t) for index in range(10)]


mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
if mallinfo is None:
    print("unknown")
    raise SystemExit
mallinfo.restype = InUse


def in_use() -> int:
    found = mallinfo()
    return getattr(found, "4") + getattr(found, "7")


torch.set_num_threads(1)
layer = torch.nn.Linear(64, 128)
pack(layer)
with torch.inference_mode():
    for rows in [*range(1, 4 * MOST_ROW_COUNTS, 3), *range(64, 513, 64)]:
        layer(torch.zeros(1, rows, 64))
    before = in_use()
    for rows in range(301, 901, 3):
        layer(torch.zeros(1, rows, 64))
    print((in_use() - before) / 1024**2)
"""


@settings(deadline=None, max_examples=40)
@given(
    channels=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    kernel=st.sampled_from([1, 3]),
    stride=st.sampled_from([1, 2]),
    bias=st.booleans(),
    inputs=st.lists(
        st.tuples(st.integers(1, 4), st.integers(3, 9), st.integers(3, 9), st.booleans()), min_size=1, max_size=3
    ),
)
def test_convolutions(
    channels: tuple[int, int], kernel: int, stride: int, bias: bool, inputs: list[tuple[int, int, int, bool]]
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(*channels, kernel, stride=stride, padding=kernel // 2, bias=bias)
    assert pack(layer) == 1
    assert isinstance(layer, PackedConvolution)
    with torch.inference_mode():
        for rows, height, width, last in inputs:
            picture = torch.randn(rows, channels[0], height, width)
            if last:
                picture = picture.contiguous(memory_format=torch.channels_last)
            expected = functional.conv2d(picture, layer.weight, layer.bias, stride, kernel // 2)
            torch.testing.assert_close(layer(picture), expected, **TOLERANCE)


@pytest.mark.parametrize("layer", [nn.Linear(8, 8), nn.Conv2d(8, 8, 1)])
def test_a_changed_weight_is_seen_also_in_a_copy(layer: nn.Linear | nn.Conv2d) -> None:
    pack(layer)
    given_rows = torch.randn(2, 8) if isinstance(layer, nn.Linear) else torch.randn(2, 8, 3, 3)
    with torch.no_grad():
        before = layer(given_rows)
        other = copy.deepcopy(layer)
        other.weight.mul_(2)
        layer_after, other_after = layer(given_rows), other(given_rows)
    assert layer.bias is not None
    assert torch.equal(layer_after, before)
    bias = layer.bias.view(-1, *(1,) * (before.ndim - 2))
    torch.testing.assert_close(other_after - bias, 2 * (before - bias), **TOLERANCE)


def test_gradients_flow_where_they_are_asked_for() -> None:
    layer = nn.Linear(3, 2)
    pack(layer)
    layer(torch.ones(1, 3)).sum().backward()
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad, torch.ones(2, 3))


def test_a_packed_base_model_predicts_and_decodes_alike(base_model: BaseModel) -> None:
    packed = load_base_model(BaseModelSettings(name="packed", source=str(base_model.folder)))
    pack_base_model(packed)
    assert any(isinstance(module, PackedLinear) for module in packed.unet.modules())
    assert any(isinstance(module, PackedConvolution) for module in packed.vae.modules())
    assert any(isinstance(module, PackedAttention) for module in packed.unet.modules())
    torch.manual_seed(0)
    latents = torch.randn(3, *base_model.latent_shape())
    hidden = torch.randn(7, base_model.embedding_width)
    outcomes = []
    with torch.inference_mode():
        for model in (base_model, packed):
            prompt = key_values(model.unet, hidden, torch.full((7,), -1), [])
            batch = KeyValueBatch.stack([prompt] * 3)
            predicted = KeyValueUNet(model.unet)(latents, torch.tensor([1.0, 500.0, 999.0]), batch)
            outcomes.append((predicted, decode_latents(model.vae, latents[:1])))
    for plain, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(other, plain, rtol=1e-3, atol=1e-4)


def test_norms_of_bfloat16_lose_less_than_torch_s_own() -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, 16)
    nn.init.normal_(norm.weight)
    pictures = torch.randn(3, 16, 5, 4).bfloat16().contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        narrow = copy.deepcopy(norm).bfloat16()
        exact = functional.group_norm(pictures.double(), 4, narrow.weight.double(), narrow.bias.double(), narrow.eps)
        own = (narrow(pictures).double() - exact).abs().max()
        assert pack(narrow) == 0
        assert isinstance(narrow, WideGroupNorm)
        wide = narrow(pictures)
    assert wide.dtype == torch.bfloat16
    assert (wide.double() - exact).abs().max() <= own
    assert pack(norm) == 0
    assert type(norm) is nn.GroupNorm


def test_packed_attention_stays_diffusers_own_without_keys_and_values(base_model: BaseModel) -> None:
    packed = load_base_model(BaseModelSettings(name="packed", source=str(base_model.folder)))
    torch.manual_seed(0)
    latents, text = torch.randn(2, *base_model.latent_shape()), torch.randn(2, 5, base_model.embedding_width)
    asked = {"encoder_hidden_states": text, "return_dict": False}
    with torch.inference_mode():
        expected = packed.unet(latents, 500, **asked)[0]
        assert pack_attention(packed.unet) > 0
        assert pack_attention(packed.unet) == 0
        untouched = packed.unet(latents, 500, **asked)[0]
        KeyValueUNet(packed.unet)
        processed = packed.unet(latents, 500, **asked)[0]
    assert torch.equal(untouched, expected)
    torch.testing.assert_close(processed, expected, **TOLERANCE)
