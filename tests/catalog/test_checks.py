"""What the checks find in pictures, on the sample subjects and on pictures made here."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from detex_catalog.checks.likeness import ProductAppearance
from detex_catalog.checks.near_duplicates import AcceptedHashes, perceptual_hash
from detex_catalog.checks.picture_check import PictureCheck, Thresholds
from detex_catalog.checks.statistics import lab_of, statistics_of
from detex_catalog.checks.unsafe import DetectorMissingError, UnsafeDetector, open_unsafe_check
from tests.catalog.conftest import SAMPLES

Check = Callable[..., tuple[str, ...]]


def photos_of(name: str) -> list[Image.Image]:
    return [Image.open(photo.image_path).convert("RGB") for photo in SAMPLES[name].photos]


def appearance(name: str, without: int | None = None) -> ProductAppearance:
    photos = [photo for index, photo in enumerate(SAMPLES[name].photos) if index != without]
    return ProductAppearance(
        [statistics_of(Image.open(each.image_path), Image.open(each.mask_path)) for each in photos]
    )


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def check() -> Check:
    """Reasons against a picture of the green mug."""
    hashes = AcceptedHashes()

    def reasons(image: Image.Image, *, accepted: bool = False, unsafe: float = 0.0, **limits: float) -> tuple[str, ...]:
        checks = PictureCheck(
            Thresholds(**limits),  # type: ignore[arg-type]
            hashes,
            lambda concept: appearance("green-mug") if concept == "mug" else None,
            lambda png: {"SOMETHING": unsafe},
        )
        found = checks.check(png(image), concept="mug", output=f"{hash(image.tobytes())}.png", min_likeness=None)
        if accepted:
            hashes.add("mug", "first.png", found.perceptual_hash)
        return found.reasons

    return reasons


@pytest.mark.parametrize("name", SAMPLES)
def test_a_photo_is_more_like_its_own_product_than_like_another(name: str) -> None:
    """Held out of the photos that it is compared with; by the median, for single scenes have a product's colours."""
    own = [appearance(name, index).likeness(statistics_of(photo)).total for index, photo in enumerate(photos_of(name))]
    mine = appearance(name)
    others = [
        mine.likeness(statistics_of(photo)).total for other in SAMPLES if other != name for photo in photos_of(other)
    ]
    assert np.median(own) > 0.9
    assert np.median(own) > np.median(others) + 0.1


def test_likeness_finds_a_picture_without_the_product(check: Check) -> None:
    assert check(photos_of("green-mug")[0]) == ()
    (reason,) = check(photos_of("pink-teapot")[0])
    assert reason.startswith("likeness: must be at least 0.7, got 0.")
    assert check(photos_of("pink-teapot")[0], min_likeness=0) == ()


def test_blank_pictures_are_found(check: Check) -> None:
    assert any(reason.startswith("blank: ") for reason in check(Image.new("RGB", (64, 64), (90, 160, 90))))


def test_near_duplicates_are_found(check: Check) -> None:
    first = photos_of("green-mug")[0]
    assert check(first, accepted=True) == ()
    (reason,) = check(first.resize((100, 100)).rotate(0.5))
    assert reason.startswith("near-duplicate: must differ from first.png in at least 4 bits")
    assert check(photos_of("green-mug")[1]) == ()
    assert check(first.resize((100, 100)), min_duplicate_distance=0) == ()


def test_duplicates_of_other_products_and_of_itself_do_not_count() -> None:
    hashes = AcceptedHashes()
    value = perceptual_hash(photos_of("green-mug")[0])
    hashes.add("mug", "a.png", value)
    assert hashes.nearest("clock", "b.png", value) is None
    assert hashes.nearest("mug", "a.png", value) is None
    assert hashes.nearest("mug", "b.png", value) == ("a.png", 0)
    hashes.remove("mug", "a.png")
    assert hashes.nearest("mug", "b.png", value) is None


def test_what_a_detector_finds_counts(check: Check) -> None:
    assert check(photos_of("green-mug")[0], unsafe=0.4) == ()
    assert check(photos_of("green-mug")[0], unsafe=0.6) == ("unsafe: SOMETHING must be at most 0.5, got 0.60",)


def test_a_detector_that_is_not_there_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nudenet", None)
    assert open_unsafe_check(UnsafeDetector.OFF) is None
    with pytest.raises(DetectorMissingError, match="catalog-unsafe"):
        open_unsafe_check(UnsafeDetector.NUDENET)


def test_colours_are_those_of_the_standard() -> None:
    """Values of the CIE 1976 space for sRGB primaries, D65."""
    primaries = np.eye(3, dtype=np.float32)[None]
    wanted = [[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]]
    np.testing.assert_allclose(lab_of(primaries)[0], wanted, atol=0.05)
    np.testing.assert_allclose(lab_of(np.ones((1, 1, 3), np.float32))[0, 0], [100, 0, 0], atol=0.05)
