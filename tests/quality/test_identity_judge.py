"""The judge of identity: labels fit the pictures, siblings are negatives, a run ends in weights and a result."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.quality.identity_judge.__main__ import main
from benchmarks.quality.identity_judge.accuracy import identity_measures
from benchmarks.quality.identity_judge.families import FamilyPlan
from benchmarks.quality.identity_judge.network import IdentityJudgeNetwork, IdentityJudgeSize, straight
from benchmarks.quality.identity_judge.photos import load_families, varied
from benchmarks.quality.identity_judge.training import contrast
from benchmarks.quality.identity_judge.weights import load_identity_judge, save_identity_judge
from benchmarks.quality.subjects import biased_photos
from benchmarks.showroom.factors import POSES
from benchmarks.showroom.renderer import badge_corners, render_photo
from benchmarks.showroom.subject import sample_subject
from benchmarks.showroom.view import sample_view

pytestmark = pytest.mark.slow

TINY = IdentityJudgeSize(picture_pixels=32, widths=(8, 8, 8, 8), identity=8)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("families")
    arguments = ["render", "--members", "2", "--size", "32", "--count", "2", "--seconds", "300"]
    assert main([*arguments, "--shards", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("pose", POSES)
def test_between_the_corners_lie_the_cells_of_the_badge_in_its_own_frame(pose: str) -> None:
    subject = sample_subject(30, "box", world="identity", badges="always")
    view = sample_view(3, pose, "studio")
    photo = render_photo(subject, view, 128)
    pixels = torch.from_numpy(photo.image).permute(2, 0, 1)[None].float() / 127.5 - 1
    corners = torch.from_numpy(badge_corners(subject, view)).float()[None]
    brightness = straight(pixels, corners)[0].mean(dim=0)  # six samples a cell, a rim of three
    cells = brightness[3:-3, 3:-3].unfold(0, 6, 6).unfold(1, 6, 6)[:, :, 2:4, 2:4].mean(dim=(2, 3)).flatten()
    dark = torch.tensor(subject.badge)
    assert cells[dark].max() < cells[~dark].min()
    assert photo.badge_mask is not None
    assert 64 < photo.badge_mask.sum() / 255 < photo.mask.sum() / 255


def test_corners_move_with_the_picture(shards: Path) -> None:
    plan = FamilyPlan(shards, "train", 2, 8, 32)
    photos = load_families([plan.path(0)], torch.device("cpu"))
    index = torch.arange(len(photos))
    corners = torch.rand(len(photos), 4, 2) - 0.5
    marked = torch.zeros(len(photos), 1, 64, 64, dtype=torch.uint8)
    place = ((corners[:, 0] + 1) * 32).long().clamp(0, 63)
    marked[index, 0, place[:, 1], place[:, 0]] = 255
    fields = {name: getattr(photos, name) for name in photos.__dataclass_fields__}
    images = torch.zeros(len(photos), 3, 64, 64, dtype=torch.uint8)
    moved = type(photos)(**fields | {"masks": marked, "corners": corners, "images": images, "reconstructions": images})
    _, masks, found = varied(moved, torch.Generator().manual_seed(0))
    peak = masks.flatten(1).argmax(dim=1)
    seen = (torch.stack([peak % 64, peak // 64], dim=1) + 0.5) / 32 - 1
    assert (seen - found[:, 0]).abs().max() < 0.07
    assert (found - corners).abs().max() > 0.05


def test_a_family_shares_every_word_and_its_members_differ(shards: Path) -> None:
    subjects = FamilyPlan(shards, "validation", 6, 2, 32).subjects(5)
    words = {(s.class_word, s.main_colour, s.accent_colour, s.pattern, s.material) for s in subjects[:6]}
    assert len(words) == 1
    assert len({s.shape for s in subjects}) == 8
    assert len({s.class_word for s in subjects}) == 1
    assert len({s.seed for s in subjects[:6]}) == 1


def test_the_loss_falls_as_siblings_are_told_apart() -> None:
    numbers = torch.tensor([0, 0, 1, 1])
    merged = torch.nn.functional.normalize(torch.ones(4, 4), dim=1)
    apart = torch.eye(4)[numbers]
    assert contrast(merged, numbers) == pytest.approx(np.log(3), rel=1e-5)
    assert contrast(apart, numbers) < 0.01


def test_siblings_are_placed_in_the_range_between_a_random_pair_and_one_subject() -> None:
    identity = torch.nn.functional.normalize(
        torch.tensor([[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 0.0]]), dim=1
    )
    subject, family = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 0, 0, 0, 1, 1])
    found = identity_measures(identity, subject, family, torch.zeros(6, dtype=torch.long))
    assert found["similarity of siblings"] == pytest.approx(0.5**0.5, abs=1e-5)
    assert found["retrieval among siblings"] == 1


def test_a_short_run_ends_in_weights_and_a_result(shards: Path, tmp_path: Path) -> None:
    weights, out = tmp_path / "weights.safetensors", tmp_path / "result.json"
    common = ["--shards", str(shards), "--size", "32", "--members", "2", "--weights", str(weights)]
    assert main(["train", *common, "--families", "2", "--seconds", "8"]) == 0
    assert weights.stat().st_size < 4_000_000
    assert main(["accuracy", *common, "--split", "train", "--out", str(out)]) == 0
    told = {row["what"] for row in json.loads(out.read_text())["rows"]}
    assert {"shape R2, photos", "retrieval among siblings, photos", "Delta E of the accent colour, photos"} <= told


def test_weights_come_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = IdentityJudgeNetwork(TINY).eval()
    save_identity_judge(network, tmp_path / "weights.safetensors", {"recipe": "random"})
    pixels = torch.rand(2, 3, 32, 32)
    expected, found = network(pixels), load_identity_judge(tmp_path / "weights.safetensors")(pixels)
    assert torch.allclose(expected.identity, found.identity, atol=5e-3)
    assert torch.allclose(expected.bit_logits, found.bit_logits, atol=2e-2)


@pytest.mark.parametrize("command", ["train", "accuracy"])
def test_no_shards_are_told(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "weights.safetensors"
    save_identity_judge(IdentityJudgeNetwork(TINY), path, {})
    seconds = ["--seconds", "0.5"] if command == "train" else []
    assert main([command, *seconds, "--shards", str(tmp_path / "none"), "--weights", str(path)]) == 2
    assert "shards: " in capsys.readouterr().err


def test_a_biased_set_has_one_scene_and_one_pose() -> None:
    photos = list(biased_photos(7, 3, 16, "identity"))
    assert len({(photo.labels.view.pose, photo.labels.view.scene) for photo in photos}) == 1
    assert len({photo.labels.view.turn for photo in photos}) == 3
    assert {photo.labels.subject for photo in photos} == {sample_subject(7, world="identity")}
