import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detex_trainer.intake.masks import Box, downsample_masks, mask_from_image, mask_to_image, subject_box
from detex_trainer.learning.photos.box_resizing import Resampling, resize_box
from detex_trainer.learning.photos.crops import Augmentation, View, cut, resized_crop, subject_crop, varied_crop

sides = st.integers(8, 200)


@st.composite
def photos(draw: st.DrawFn) -> tuple[int, int, Box]:
    width, height = draw(sides), draw(sides)
    left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return width, height, Box(left, top, draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height)))


def holds(box: Box, subject: Box) -> bool:
    return (
        box.left <= subject.left
        and box.top <= subject.top
        and box.right >= subject.right
        and box.bottom >= subject.bottom
    )


@given(photo=photos())
def test_crops_are_squares_that_hold_the_subject(photo: tuple[int, int, Box]) -> None:
    width, height, subject = photo
    box = subject_crop(width, height, subject)
    assert box.width == box.height
    assert holds(box, subject)
    if max(subject.width, subject.height) <= min(width, height):
        assert box.width == min(width, height)
        assert holds(Box(0, 0, width, height), box)


@given(photo=photos(), seed=st.integers(0, 1_000))
def test_varied_crops_still_hold_the_subject(photo: tuple[int, int, Box], seed: int) -> None:
    width, height, subject = photo
    augmentation = Augmentation(largest_zoom=1.5, largest_shift=0.3)
    box = subject_crop(width, height, subject)
    varied = varied_crop(box, subject, augmentation, torch.Generator().manual_seed(seed))
    assert varied.width == varied.height
    assert holds(varied, subject)


def test_without_augmentation_the_crop_stays() -> None:
    subject, still = Box(5, 5, 9, 9), Augmentation(largest_zoom=1.0, largest_shift=0.0)
    box = subject_crop(40, 20, subject)
    assert varied_crop(box, subject, still, torch.Generator().manual_seed(0)) == box


def test_a_photo_without_subject_is_cut_in_the_middle() -> None:
    assert subject_crop(40, 20, subject_box(np.zeros((20, 40), dtype=np.float32))) == Box(-1, -11, 41, 31)
    assert subject_crop(40, 20, Box(18, 9, 22, 11)) == Box(10, 0, 30, 20)


def test_cut_shows_the_box_and_marks_what_overhangs() -> None:
    pixels = np.zeros((4, 8, 3), dtype=np.uint8)
    pixels[..., 0] = np.arange(8) * 10
    pixels[..., 1] = np.arange(4)[:, None] * 10
    mask = np.zeros((4, 8), dtype=np.float32)
    mask[1, 2] = 1
    crop = cut(Image.fromarray(pixels), mask, Box(1, -2, 9, 6), 8)
    picture = np.asarray(crop.picture)
    assert picture[2, 0].tolist() == [10, 0, 0]
    assert picture[5, 6].tolist() == [70, 30, 0]
    assert picture[0, 7].tolist() == [70, 0, 0]  # the edge goes on
    valid = np.asarray(crop.valid)
    assert valid[2:6, :7].min() == 255
    assert valid[:2].max() == valid[6:].max() == valid[:, 7].max() == 0
    assert np.argwhere(np.asarray(crop.mask) == 255).tolist() == [[3, 1]]


def test_mirrored_cuts_are_mirrored_as_a_whole() -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8))
    mask = rng.uniform(0, 1, (16, 16)).astype(np.float32)
    box = Box(-2, 3, 10, 15)
    plain, mirrored = cut(picture, mask, box, 12), cut(picture, mask, box, 12, mirrored=True)
    for part in ("picture", "mask", "valid"):
        flipped = np.asarray(getattr(mirrored, part))[:, ::-1]
        assert np.array_equal(np.asarray(getattr(plain, part)), flipped)


@pytest.mark.parametrize("size", [(8, 8), (16, 8), (1, 1)])
def test_downsampled_masks_keep_the_share_that_is_covered(size: tuple[int, int]) -> None:
    masks = torch.rand(3, 1, 32, 64, generator=torch.Generator().manual_seed(0))
    small = downsample_masks(masks, *size)
    assert small.shape == (3, 1, *size)
    torch.testing.assert_close(small.mean(dim=(1, 2, 3)), masks.mean(dim=(1, 2, 3)))


def test_masks_go_through_images() -> None:
    mask = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    assert np.array_equal(mask_from_image(mask_to_image(mask)), mask)


def test_resized_crops_say_how_they_show_the_photo() -> None:
    crop, generator = Box(10, 20, 110, 120), torch.Generator().manual_seed(0)
    sides: dict[View, list[int]] = {view: [] for view in View}
    for _ in range(300):
        box, view = resized_crop(crop, generator)
        assert box.width == box.height
        sides[view].append(box.width)
        whole, part = (box, crop) if box.width >= crop.width else (crop, box)
        assert holds(whole, part)
    assert min(sides[View.SMALL]) > 100 / 0.61
    assert max(sides[View.SMALL]) > 250
    assert max(sides[View.AS_IT_IS]) <= 100 / 0.59
    assert min(sides[View.AS_IT_IS]) >= 100
    assert 70 <= min(sides[View.NEAR]) <= max(sides[View.NEAR]) <= 84
    assert 0.2 < len(sides[View.NEAR]) / 300 < 0.47


@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    corner=st.tuples(st.integers(-60, 39), st.integers(-60, 39)),
    length=st.integers(1, 160),
    # Odd as the box, so that no pixel's centre lies between two cells, where rounding decides whose it is.
    side=st.integers(0, 24).map(lambda half: 2 * half + 1),
    seed=st.integers(0, 100),
)
@settings(max_examples=300, deadline=None)
def test_boxes_are_resized_as_if_what_overhangs_were_laid_out(
    size: tuple[int, int], corner: tuple[int, int], length: int, side: int, seed: int
) -> None:
    height, width = size
    top, left = min(corner[0], height - 1), min(corner[1], width - 1)
    length = max(length, 1 - top, 1 - left) | 1
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    box = Box(left, top, left + length, top + length)
    margins = [(max(0, -top), max(0, top + length - height)), (max(0, -left), max(0, left + length - width)), (0, 0)]
    corner_row, corner_column = top + margins[0][0], left + margins[1][0]
    for resampling, fill, mode in ((Resampling.LANCZOS, "edge", "edge"), (Resampling.BOX, "black", "constant")):
        laid_out = np.pad(pixels, margins, mode=mode)
        square = laid_out[corner_row : corner_row + length, corner_column : corner_column + length]
        expected = np.asarray(Image.fromarray(square).resize((side, side), resampling.value[0]), dtype=int)
        found = np.asarray(resize_box(pixels, box, side, resampling, fill=fill), dtype=int)
        assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("size", [(16_000, 60), (60, 16_000)])
def test_long_and_narrow_photos_take_memory_by_their_own_size(size: tuple[int, int]) -> None:
    picture = Image.effect_noise(size, 40).convert("RGB")
    mask = np.ones((size[1], size[0]), dtype=np.float32)
    box = subject_crop(*size, subject_box(mask))
    tracemalloc.start()
    try:
        crop = cut(picture, mask, box, 64)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()
    assert crop.picture.size == crop.mask.size == crop.valid.size == (64, 64)
    assert np.asarray(crop.mask).min() == 255
    assert np.asarray(crop.valid).max() < 255 > np.asarray(crop.valid).min() == 0
