"""`detex segmenter` and `detex masks`, with a model of three nodes that takes dark for salient."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from detex_core.errors import InvalidInputError
from detex_segmentation import Box
from tests.client.conftest import Outcome

Detex = Callable[..., Outcome]


def field(number: int, value: int | bytes) -> bytes:
    """A field of a protobuf message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def tensor(name: bytes, *shape: int) -> bytes:
    sizes = b"".join(field(1, field(1, length)) for length in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, sizes)))


def node(kind: bytes, inputs: list[bytes], output: bytes, attribute: bytes = b"") -> bytes:
    return b"".join(field(1, each) for each in inputs) + field(2, output) + field(4, kind) + attribute


def tiny_model(*, dark: bool) -> bytes:
    """ONNX: eight times the mean over the channels, negated where dark is salient."""
    axes = field(5, field(1, b"axes") + field(8, 1) + field(20, 7))
    nodes = [
        node(b"ReduceMean", [b"x"], b"mean", axes),
        node(b"Neg" if dark else b"Identity", [b"mean"], b"sign"),
        node(b"Sum", [b"sign"] * 8, b"y"),
    ]
    graph = b"".join(field(1, each) for each in nodes) + field(2, b"g")
    graph += field(11, tensor(b"x", 1, 3, 64, 64)) + field(12, tensor(b"y", 1, 1, 64, 64))
    return field(1, 8) + field(7, graph) + field(8, field(2, 13))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DETEX_SEGMENTER_FOLDER", str(tmp_path / "segmenter"))
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_model(dark=True))
    return path


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    folder = tmp_path / "discs"
    folder.mkdir()
    photo = Image.new("RGB", (200, 100), "white")
    draw = ImageDraw.Draw(photo)
    draw.ellipse((20, 20, 80, 80), fill="black")
    draw.ellipse((120, 20, 180, 80), fill="black")
    photo.save(folder / "two.png")
    Image.new("RGB", (100, 100), "white").save(folder / "nothing.png")
    return folder


def test_masks_go_beside_the_photos_and_empty_photos_are_named(detex: Detex, model: Path, discs: Path) -> None:
    assert detex("segmenter", "install", "--from", str(model)).exit_code == 0
    shown = detex("segmenter", "show", "--json").document()
    assert shown["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    outcome = detex("masks", str(discs))
    assert outcome.exit_code == 1
    assert "nothing.png: Nothing stands out" in outcome.stderr
    mask = np.asarray(Image.open(discs / "two.mask.png"))
    assert mask.shape == (100, 200)
    assert (mask[50, 50] > 200, mask[50, 150] > 200, mask[50, 100] < 50) == (True, True, True)
    assert (discs / "sheets" / "masks-sheet.png").exists()
    assert not (discs / "nothing.mask.png").exists()


def test_a_box_says_which_of_two_things_is_the_subject(detex: Detex, model: Path, discs: Path, tmp_path: Path) -> None:
    detex("segmenter", "install", "--from", str(model))
    out = tmp_path / "out"
    assert detex("masks", str(discs / "two.png"), "--box", "two.png=0,0,0.5,1", "--out", str(out)).exit_code == 0
    mask = np.asarray(Image.open(out / "two.mask.png"))
    assert mask[50, 50] > 200
    assert not mask[:, 100:].any()
    assert detex("masks", str(discs), "--box", "other.png=0,0,1,1").exit_code == 2
    assert detex("masks", str(discs), "--box", "two.png=0,0,2,1").exit_code == 2


def test_without_a_model_it_says_how_to_get_one(detex: Detex, model: Path, discs: Path) -> None:
    outcome = detex("masks", str(discs))
    assert outcome.exit_code == 1
    assert "detex segmenter install" in outcome.stderr


@pytest.mark.parametrize("wrong", [tiny_model(dark=False), b"no model", b""])
def test_a_wrong_model_leaves_the_old_one_in_use(detex: Detex, model: Path, tmp_path: Path, wrong: bytes) -> None:
    detex("segmenter", "install", "--from", str(model))
    before = detex("segmenter", "show", "--json").document()
    other = tmp_path / "other.onnx"
    other.write_bytes(wrong)
    assert detex("segmenter", "install", "--from", str(other)).exit_code == 2
    assert detex("segmenter", "show", "--json").document() == before
    assert len(list((tmp_path / "segmenter").glob("*.onnx"))) == 1


@given(st.lists(st.floats(), min_size=4, max_size=4), st.integers(1, 5_000), st.integers(1, 5_000))
def test_boxes_are_refused_or_lie_inside_the_photo(sides: list[float], width: int, height: int) -> None:
    try:
        box = Box.parse(",".join(map(repr, sides)))
    except InvalidInputError:
        return
    left, top, right, bottom = box.pixels(width, height)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
