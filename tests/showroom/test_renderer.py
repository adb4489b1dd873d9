"""Photos: the same bytes for the same seed, masks that fit, factors that show."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.showroom.__main__ import main
from benchmarks.showroom.factors import CLASSES, POSES, SCENES
from benchmarks.showroom.photos import photograph
from benchmarks.showroom.renderer import render_photo
from benchmarks.showroom.shards import ShardPlan, load_shards, render_shard
from benchmarks.showroom.subject import sample_subject
from benchmarks.showroom.view import sample_view

SIZE = 32


def test_the_same_seeds_give_the_same_bytes() -> None:
    first, again = (render_photo(sample_subject(11), sample_view(5), SIZE) for _ in range(2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)
    other = render_photo(sample_subject(11), sample_view(6), SIZE)
    assert np.abs(first.image.astype(int) - other.image).mean() > 2


@pytest.mark.parametrize("class_word", CLASSES)
def test_the_mask_covers_the_product_and_only_it(class_word: str) -> None:
    # The same view of the same shape in two colourings: whatever differs clearly is the product.
    view = sample_view(3, "upright", "studio")
    subject = sample_subject(21, class_word).model_copy(update={"pattern": "plain", "material": "matte"})
    red = subject.model_copy(update={"main_rgb": (0.8, 0.05, 0.05), "accent_rgb": (0.8, 0.05, 0.05)})
    blue = subject.model_copy(update={"main_rgb": (0.05, 0.05, 0.8), "accent_rgb": (0.05, 0.05, 0.8)})
    photos = [render_photo(coloured, view, SIZE) for coloured in (red, blue)]
    np.testing.assert_array_equal(photos[0].mask, photos[1].mask)
    differs = np.abs(photos[0].image.astype(int) - photos[1].image).max(-1) > 25
    mask = photos[0].mask
    assert not np.any(differs & (mask == 0))
    assert differs[mask == 255].mean() > 0.5
    rows, columns = np.nonzero(mask > 127)
    longest = max(np.ptp(rows), np.ptp(columns)) + 1
    assert 0.5 * SIZE <= longest <= 0.75 * SIZE


@pytest.mark.parametrize("pose", POSES)
def test_every_pose_keeps_the_product_in_the_picture(pose: str) -> None:
    for seed in range(3):
        mask = render_photo(sample_subject(seed), sample_view(seed, pose), SIZE).mask
        border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
        assert border.max() < 255
        assert (mask > 127).mean() > 0.04


def test_scenes_look_different() -> None:
    subject = sample_subject(7)
    means = {scene: render_photo(subject, sample_view(1, "upright", scene), 16).image.astype(float) for scene in SCENES}
    names = list(means)
    gaps = [np.abs(means[a] - means[b]).mean() for i, a in enumerate(names) for b in names[i + 1 :]]
    assert min(gaps) > 5


def test_labels_hold_what_was_asked() -> None:
    photo = render_photo(sample_subject(30), sample_view(2, "lying", "beach"), SIZE)
    assert (photo.labels.view.pose, photo.labels.view.scene, photo.labels.split) == ("lying", "beach", "test")
    assert photo.labels.subject == sample_subject(30)


def test_a_session_varies_pose_and_scene() -> None:
    photos = list(photograph(40, 4, 16))
    assert len({photo.labels.view.pose for photo in photos}) == 4
    assert len({photo.labels.view.scene for photo in photos}) == 4
    assert len({photo.labels.subject.seed for photo in photos}) == 1


def test_sizes_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="size_pixels: got 8, expected 16 to 1024"):
        render_photo(sample_subject(1), sample_view(1), 8)


def test_command_line_writes_photos_masks_and_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["render", "--split", "test", "--subjects", "2", "--photos", "2", "--seed", "9", "--size", "16"]
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 0
    assert main([*arguments, "--out", str(tmp_path / "b")]) == 0
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 2 * 2 * 3
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with Image.open(next((tmp_path / "a").rglob("photo_0.png"))) as photo:
        assert (photo.size, photo.mode) == ((16, 16), "RGB")
    assert "2/2" in capsys.readouterr().out


def test_command_line_names_the_bad_argument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "--subjects", "0", "--out", str(tmp_path)]) == 2
    assert "count: got 0, expected 1 or more" in capsys.readouterr().err


def test_shards_are_whole_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.showroom.shards.SUBJECTS_PER_SHARD", 2)
    plan = ShardPlan(tmp_path, "validation", seed=4, number=0, size_pixels=16)
    path = render_shard(plan)
    written = path.stat().st_mtime_ns
    assert render_shard(plan).stat().st_mtime_ns == written
    photos = load_shards([path])
    assert photos.images.shape == (4, 16, 16, 3)
    assert photos.masks.shape == (4, 16, 16)
    assert {labels.split for labels in photos.labels} == {"validation"}
    again = render_photo(photos.labels[3].subject, photos.labels[3].view, 16)
    np.testing.assert_array_equal(again.image, photos.images[3])
    with pytest.raises(ValueError, match="paths: got no shard"):
        load_shards([])
