"""Photos as part of pictures: sizes, what is held on to, and what is put together."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from detex_diffusion.base_model import BaseModel
from detex_diffusion.editing import (
    covering,
    drawing_size,
    flattened,
    held_latents,
    keeping,
    photo_latents,
    put_together,
)
from detex_diffusion.latents import decode_latents, encode_images, to_pixels

Size = tuple[int, int]


def photo(size: Size = (48, 32), seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def box_mask(size: Size, box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", size, 0)
    mask.paste(255, box)
    return mask


@settings(deadline=None)
@given(
    st.integers(1, 16_384),
    st.integers(1, 16_384),
    st.sampled_from([8, 16, 64]),
    st.sampled_from([64 * 64, 128 * 128, 512 * 512, 1024 * 1024, 1024 * 1024 - 1]),
)
@example(1600, 1200, 8, 1024 * 1024)
@example(1920, 1080, 8, 1024 * 1024)
@example(16_384, 1, 64, 64 * 64)
def test_a_drawing_has_the_shape_of_the_photo_and_no_more_pixels_than_asked(
    width: int, height: int, multiple: int, area: int
) -> None:
    drawn = drawing_size((width, height), area, multiple)
    assert drawn[0] % multiple == drawn[1] % multiple == 0
    assert min(drawn) >= multiple
    assert drawn[0] * drawn[1] <= area
    if 0.2 < width / height < 5 and area >= 512 * 512:
        assert drawn[0] / drawn[1] == pytest.approx(width / height, rel=multiple / min(drawn) * 1.1)
        assert drawn[0] * drawn[1] >= area * (1 - multiple / drawn[0]) * (1 - multiple / drawn[1]) * 0.99


def test_the_size_it_was_made_for_is_kept() -> None:
    assert drawing_size((512, 512), 512 * 512, 8) == (512, 512)
    assert drawing_size((1200, 1200), 1024 * 1024, 8) == (1024, 1024)
    assert drawing_size((3000, 2000), 512 * 512, 8) == (624, 416)


def test_an_area_without_room_is_named() -> None:
    with pytest.raises(ValueError, match=r"^area: 63 pixels"):
        drawing_size((10, 10), 63, 8)


def test_covering_cuts_at_the_centre_and_leaves_what_fits() -> None:
    original = photo()
    assert covering(original, original.size) is original
    marked = Image.new("RGB", (60, 20), (255, 0, 0))
    marked.paste((0, 255, 0), (20, 0, 40, 20))
    cut = np.asarray(covering(marked, (20, 20)))
    assert cut.shape == (20, 20, 3)
    assert bool((cut[:, 2:-2] == (0, 255, 0)).all())


def test_a_mask_says_what_to_keep_or_what_to_repaint() -> None:
    original, mask = photo(), box_mask((48, 32), (10, 8, 30, 24))
    mask.putpixel((0, 0), 51)
    kept = keeping(original, mask, repaint=False)
    assert kept.shape == (32, 48)
    assert kept[8:24, 10:30].min() == 1
    assert (kept[0, 0], kept[0, 1]) == (pytest.approx(0.2), 0)
    assert np.allclose(keeping(original, mask, repaint=True), 1 - kept)


def test_what_is_transparent_is_never_kept() -> None:
    cut_out = photo().convert("RGBA")
    cut_out.putalpha(box_mask((48, 32), (10, 8, 30, 24)))
    kept = keeping(cut_out, None, repaint=False)
    assert kept[8:24, 10:30].min() == 1
    assert kept[:8].max() == 0
    assert keeping(cut_out, box_mask((48, 32), (0, 0, 20, 32)), repaint=False)[12, 25] == 0
    assert flattened(cut_out).getpixel((0, 0)) == (255, 255, 255)


def test_latents_are_held_where_all_their_pixels_are_kept() -> None:
    kept = np.zeros((64, 64), dtype=np.float32)
    kept[8:24, 9:32] = 1
    held = held_latents(kept, 8, 8)
    assert held.shape == (1, 8, 8)
    wanted = torch.zeros(8, 8)
    wanted[1:3, 2:4] = 1
    assert torch.equal(held[0], wanted)


def test_what_is_kept_stays_bit_for_bit_and_the_rest_is_drawn() -> None:
    original, drawn = photo((64, 48), 1), photo((32, 24), 2)
    kept = keeping(original, box_mask((64, 48), (20, 10, 44, 30)), repaint=False)
    together = np.asarray(put_together(original, drawn, kept))
    assert together.shape == (48, 64, 3)
    before, scene = np.asarray(original), np.asarray(drawn.resize((64, 48), Image.Resampling.LANCZOS))
    assert bool((together[10:30, 20:44] == before[10:30, 20:44]).all())
    assert bool((together[:6] == scene[:6]).all())
    assert bool((together[36:] == scene[36:]).all())
    edge = together[20, 44].astype(int)
    assert bool((edge != before[20, 44]).any())
    assert bool((edge != scene[20, 44]).any())


def test_a_shadow_lies_below_what_is_kept_and_nowhere_else() -> None:
    original, drawn = photo((64, 64), 1), Image.new("RGB", (64, 64), (200, 150, 100))
    kept = keeping(original, box_mask((64, 64), (20, 10, 44, 40)), repaint=False)
    plain, shaded = (np.asarray(put_together(original, drawn, kept, shadow=s)).astype(int) for s in (0.0, 0.6))
    assert bool((shaded <= plain).all())
    darker = (plain - shaded).sum(axis=2)
    assert int(darker[:34].max()) == 0
    assert int(darker[10:40, 20:44].max()) == 0
    assert int(darker[42, 32]) > 60
    red, _, blue = shaded[42, 32]
    assert red / blue == pytest.approx(2, rel=0.1)


def test_a_photo_of_many_rows_is_put_together_without_seams() -> None:
    original, drawn = photo((40, 700), 1), Image.new("RGB", (40, 700), (9, 99, 199))
    kept = keeping(original, box_mask((40, 700), (10, 100, 30, 650)), repaint=False)
    together = np.asarray(put_together(original, drawn, kept))
    assert np.array_equal(together[100:650, 10:30], np.asarray(original)[100:650, 10:30])
    assert np.array_equal(together[:90], np.asarray(drawn)[:90])
    assert np.array_equal(together[110:640, 35:], np.asarray(drawn)[110:640, 35:])


def test_nothing_kept_casts_no_shadow() -> None:
    drawn = photo((32, 32), 2)
    together = put_together(photo((32, 32)), drawn, np.zeros((32, 32), dtype=np.float32), shadow=1.0)
    assert np.array_equal(np.asarray(together), np.asarray(drawn))


def test_photo_latents_are_those_of_the_vae(base_model: BaseModel) -> None:
    original = photo((16, 16))
    latents = photo_latents(base_model.vae, original, (16, 16), cut=False)
    assert torch.equal(latents, encode_images(base_model.vae, to_pixels([original]))[0])
    assert latents.shape == base_model.latent_shape()
    wide = photo((96, 32))
    shown, cut = (photo_latents(base_model.vae, wide, (16, 16), cut=value) for value in (False, True))
    assert not torch.equal(shown, cut)
    assert decode_latents(base_model.vae, shown[None]).shape == (1, 3, 16, 16)
