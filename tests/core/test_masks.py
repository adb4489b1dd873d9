"""Masks of photos."""

import numpy as np
import pytest
from PIL import Image

from detex_core.images import decode_mask
from tests.core.pictures import HEIGHT, WIDTH, encoded, gradient, png, refusal


def disc(mode: str = "L", size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]]
    inside = (rows - size[1] / 2) ** 2 + (columns - size[0] / 2) ** 2 < 15**2
    return Image.fromarray(np.where(inside, 255, 0).astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P", "LA", "RGBA"])
def test_masks_of_every_mode(mode: str) -> None:
    mask = decode_mask(encoded(disc(mode)), field="mask", size=(WIDTH, HEIGHT))
    assert mask.mode == "L"
    assert mask.tobytes() == disc().tobytes()


def test_masks_keep_soft_edges_and_take_16_bits() -> None:
    soft = gradient("L").resize((WIDTH, HEIGHT))
    soft.putpixel((0, 0), 255)
    assert decode_mask(encoded(soft), field="mask", size=soft.size).tobytes() == soft.tobytes()
    wide = (np.asarray(disc()).astype(np.uint16) * 257).astype(">u2")
    data = png(WIDTH, HEIGHT, 16, 0, b"".join(b"\0" + row.tobytes() for row in wide))
    assert decode_mask(data, field="mask", size=(WIDTH, HEIGHT)).tobytes() == disc().tobytes()


def test_transparent_pixels_of_a_mask_are_black() -> None:
    image = Image.new("RGBA", (WIDTH, HEIGHT), (255, 255, 255, 255))
    image.putalpha(disc())
    assert decode_mask(encoded(image), field="mask", size=image.size).tobytes() == disc().tobytes()


def test_a_mask_may_be_white_all_over_but_not_black() -> None:
    white = encoded(Image.new("L", (WIDTH, HEIGHT), 255))
    assert decode_mask(white, field="mask", size=(WIDTH, HEIGHT)).getextrema() == (255, 255)
    for level in (0, 127):
        black = encoded(Image.new("L", (WIDTH, HEIGHT), level))
        assert "all-black" in refusal(black, decode_mask, size=(WIDTH, HEIGHT))


def test_a_mask_of_another_size_is_refused() -> None:
    sentence = refusal(encoded(disc(size=(50, 40))), decode_mask, size=(WIDTH, HEIGHT))
    assert "50 x 40 pixels" in sentence
    assert "60 x 40 pixels" in sentence


def test_a_mask_without_a_photo_may_have_any_size() -> None:
    assert decode_mask(encoded(disc(size=(50, 40))), field="mask", size=None).size == (50, 40)


def test_a_mask_is_rotated_like_its_photo() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = decode_mask(encoded(disc(), exif=exif), field="mask", size=(HEIGHT, WIDTH))
    assert mask.size == (HEIGHT, WIDTH)
    assert "40 x 60" in refusal(encoded(disc(), exif=exif), decode_mask, size=(WIDTH, HEIGHT))
