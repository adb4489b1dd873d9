from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detex_core.errors import FailedPreconditionError, InvalidInputError
from detex_showroom import sample_subjects
from detex_trainer.intake.segmenters import SubjectNotFoundError, open_segmenter
from detex_trainer.intake.segmenters.segmentation import SegmentationRequest, SegmentationTask, segment_apart


def overlap(mask: np.ndarray, truth: np.ndarray) -> float:
    """Intersection over union."""
    found = mask > 0.5
    return float((found & truth).sum() / (found | truth).sum())


def test_sample_subjects_are_found_without_their_masks() -> None:
    segmenter = open_segmenter("color_contrast")
    overlaps = []
    for subject in sample_subjects():
        photo = subject.photos[0]
        picture = Image.open(photo.image_path).convert("RGB")
        truth = np.asarray(Image.open(photo.mask_path).convert("L")) > 127
        mask = segmenter.segment(picture)
        assert mask.shape == (picture.height, picture.width)
        assert mask.dtype == np.float32
        overlaps.append(overlap(mask, truth))
    assert np.mean(overlaps) > 0.8
    assert min(overlaps) > 0.6


@pytest.mark.parametrize("size", [(300, 200), (90, 400)])
def test_masks_have_the_size_of_any_photo(size: tuple[int, int]) -> None:
    width, height = size
    rng = np.random.default_rng(1)
    pixels = rng.normal((90, 140, 90), 6, (height, width, 3))
    y, x = np.mgrid[:height, :width]
    truth = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (0.3 * min(size)) ** 2
    pixels[truth] = rng.normal((200, 60, 40), 10, (int(truth.sum()), 3))
    mask = open_segmenter("color_contrast").segment(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    assert mask.shape == truth.shape
    assert mask.min() >= 0
    assert mask.max() <= 1
    assert overlap(mask, truth) > 0.9


def test_holes_in_the_subject_belong_to_it() -> None:
    pixels = np.full((96, 96, 3), (40, 60, 160), dtype=np.uint8)
    pixels[24:72, 24:72] = (220, 200, 60)
    pixels[44:52, 44:52] = (40, 60, 160)
    mask = open_segmenter("color_contrast").segment(Image.fromarray(pixels))
    assert mask[48, 48] == 1
    assert mask[5, 5] == 0


@pytest.mark.parametrize("seed", range(3))
def test_a_photo_of_nothing_is_refused_with_advice(seed: int) -> None:
    grey = np.full((64, 64, 3), 90 + 40 * seed, dtype=np.uint8)
    with pytest.raises(SubjectNotFoundError, match="Send a mask") as caught:
        open_segmenter("color_contrast").segment(Image.fromarray(grey))
    assert caught.value.reason == "SUBJECT_NOT_FOUND"


def test_none_takes_the_whole_picture() -> None:
    mask = open_segmenter("none").segment(Image.new("RGB", (7, 5)))
    assert mask.shape == (5, 7)
    assert mask.min() == 1


def test_unknown_segmenters_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"segmenter: must be color_contrast or none, got magic"):
        open_segmenter("magic")


def test_the_log_says_why_a_segmenter_failed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    task = SegmentationTask(photo=tmp_path / "photo.png", mask=tmp_path / "mask.png")
    answer = segment_apart(SegmentationRequest(segmenter="magic", tasks=(task,)), timeout_seconds=120)
    assert answer.found == (False,)
    assert "segmenter magic ended with status 1" in caplog.text
    assert "color_contrast or none" in caplog.text


@pytest.fixture
def installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that brings two segmenters, one of which does not exist."""
    (tmp_path / "tall_package.py").write_text(
        "import numpy as np\n"
        "class UpperHalf:\n"
        "    def segment(self, photo):\n"
        "        mask = np.zeros((photo.height, photo.width), dtype=np.float32)\n"
        "        mask[: photo.height // 2] = 1\n"
        "        return mask\n"
    )
    information = tmp_path / "tall_package-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: tall-package\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[detex.segmenters]\nupper-half = tall_package:UpperHalf\nmissing = tall_package:Missing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("installed_package")
def test_installed_packages_bring_segmenters() -> None:
    assert open_segmenter("upper-half").segment(Image.new("RGB", (4, 6))).sum() == 12
    with pytest.raises(FailedPreconditionError, match="'missing' cannot be loaded"):
        open_segmenter("missing")
    with pytest.raises(InvalidInputError, match="must be color_contrast or none or missing or upper-half"):
        open_segmenter("magic")
