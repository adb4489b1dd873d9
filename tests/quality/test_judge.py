from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.quality.judge import load_judge
from benchmarks.quality.judge.accuracy import accuracies, retrieval_accuracy
from benchmarks.quality.judge.judge import WEIGHTS_PATH, save_judge
from benchmarks.quality.judge.network import JudgeNetwork, JudgeSize
from benchmarks.quality.judge.photos import JudgePhotos, subject_batches, varied
from benchmarks.quality.judge.training import JudgeRecipe, contrast, learning_rate_share, train_judge
from benchmarks.showroom.base_model.corpus import FACTORS
from benchmarks.showroom.factors import CLASSES
from detex_diffusion.latents import to_pixels
from tests.quality.conftest import TINY_JUDGE


def make_photos(subjects: int = 2 * len(CLASSES)) -> JudgePhotos:
    """Two photos of each subject: a box of its own colour, bright where the class number is odd."""
    generator = torch.Generator().manual_seed(3)
    rows = 2 * subjects
    of_subject = torch.arange(rows) // 2
    masks = torch.zeros(rows, 1, 16, 16, dtype=torch.uint8)
    masks[:, :, 4:12, 4:12] = 255
    colours = torch.rand(subjects, 3, generator=generator)[of_subject]
    images = torch.randint(0, 60, (rows, 3, 16, 16), generator=generator)
    images = torch.where(masks > 0, (255 * colours)[:, :, None, None].long(), images).to(torch.uint8)
    factors = {name: torch.randint(0, len(words), (rows,), generator=generator) for name, words in FACTORS.items()} | {
        "class": of_subject % len(CLASSES)
    }
    return JudgePhotos(
        images, masks, images[:4], factors, torch.rand(rows, 6, generator=generator), colours.repeat(1, 2)
    )


def test_the_judge_says_words_of_each_factor(tiny_judge_path: Path) -> None:
    judge = load_judge(tiny_judge_path)
    pictures = [
        Image.new("RGB", size, colour) for size, colour in (((16, 16), "red"), ((64, 32), "blue"), ((16, 16), "red"))
    ]
    judged = judge.judge(pictures)
    assert {name: len(words) for name, words in judged.words.items()} == dict.fromkeys(FACTORS, 3)
    assert all(word in FACTORS[name] for name, words in judged.words.items() for word in words)
    assert all(bool(((chance > 0) & (chance <= 1)).all()) for chance in judged.confidences.values())
    assert judged.identity.norm(dim=1).tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    assert judged.masks.shape == (3, 1, 16, 16)
    assert torch.equal(judged.identity[0], judged.identity[2])
    assert not torch.allclose(judged.identity[0], judged.identity[1])


def test_weights_are_what_was_saved(tmp_path: Path) -> None:
    network = JudgeNetwork(TINY_JUDGE).eval()
    save_judge(network, tmp_path / "weights.safetensors", {})
    pixels = to_pixels([Image.linear_gradient("L").resize((16, 16))])
    loaded = load_judge(tmp_path / "weights.safetensors").network
    assert torch.allclose(loaded(pixels).identity, network(pixels).identity, atol=1e-2)


def test_weights_that_are_none(tmp_path: Path, tiny_judge_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"judge train"):
        load_judge(tmp_path / "nothing.safetensors")
    from safetensors.torch import load_file, save_file

    tensors = load_file(tiny_judge_path)
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="holds no judge"):
        load_judge(tmp_path / "other.safetensors")


def test_training_learns_goes_on_and_repeats_itself(tmp_path: Path) -> None:
    photos = make_photos()
    recipe = JudgeRecipe(size=TINY_JUDGE, steps=30, subjects_per_class=2, learning_rate=0.01)
    lines: list[str] = []
    network = train_judge(photos, recipe, tmp_path / "whole" / "checkpoint.pt", lines.append)
    found = accuracies(network, photos, photos.images)
    untrained = accuracies(JudgeNetwork(TINY_JUDGE).eval(), photos, photos.images)
    assert found["mask overlap"] > max(0.6, untrained["mask overlap"] + 0.1)
    assert found["class"] > untrained["class"]
    lines.clear()
    again = train_judge(photos, recipe, tmp_path / "whole" / "checkpoint.pt", lines.append)
    assert not lines
    assert all(torch.equal(one, other) for one, other in zip(again.parameters(), network.parameters(), strict=True))
    with pytest.raises(ValueError, match="of another recipe"):
        train_judge(photos, replace(recipe, seed=1), tmp_path / "whole" / "checkpoint.pt", lines.append)


def test_learning_rates_warm_up_and_fall_to_nothing() -> None:
    shares = [learning_rate_share(step, 100) for step in range(1, 101)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert shares[4:] == sorted(shares[4:], reverse=True)
    assert shares[-1] == pytest.approx(0.0)


def test_too_few_photos(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too few"):
        train_judge(make_photos(), JudgeRecipe(size=TINY_JUDGE), tmp_path / "checkpoint.pt", print)


def test_batches_hold_every_class_alike() -> None:
    classes = torch.tensor([0, 1, 2] * 5 + [1, 1])
    batches = list(subject_batches(classes, 2, seed=0, epoch=0))
    assert [sorted(classes[batch].tolist()) for batch in batches] == [[0, 0, 1, 1, 2, 2]] * 2
    assert len(set(torch.cat(batches).tolist())) == 12
    assert not torch.equal(batches[0], next(subject_batches(classes, 2, seed=0, epoch=1)))


def test_variation_moves_picture_and_mask_together() -> None:
    photos = make_photos()
    index = torch.arange(20).repeat(3)
    pixels, masks = varied(photos, index, torch.Generator().manual_seed(0))
    assert pixels.shape == (60, 3, 16, 16)
    assert float(pixels.abs().max()) <= 1
    inside = (masks > 0.5).float()
    subject = photos.colours[index][:, :3, None, None] * 2 - 1
    error = (((pixels - subject).abs()) * inside).sum(dim=(1, 2, 3)) / (3 * inside.sum(dim=(1, 2, 3)))
    assert float(error.median()) < 0.2


def test_contrast_is_least_where_partners_agree() -> None:
    rows = torch.eye(6)[:4]
    assert float(contrast(rows, rows)) < 0.01
    assert float(contrast(rows, rows.roll(1, dims=0))) > 5


def test_retrieval_over_all_galleries() -> None:
    one_hot = torch.eye(5)
    perfect = one_hot.repeat_interleave(2, dim=0)
    assert retrieval_accuracy(perfect, 5) == 1.0
    swapped = perfect.clone()
    swapped[1], swapped[3] = perfect[3], perfect[1]
    # Four of ten queries find one other subject nearer; a gallery of 2 among the 4 others misses it 3 times in 4.
    assert retrieval_accuracy(swapped, 2) == pytest.approx((6 + 4 * 3 / 4) / 10)
    assert retrieval_accuracy(swapped, 5) == pytest.approx(0.6)


@pytest.mark.skipif(not WEIGHTS_PATH.exists(), reason="weights are made by benchmarks.quality.judge train")
def test_the_trained_judge_knows_rendered_photos() -> None:
    from benchmarks.showroom.photos import photograph
    from benchmarks.showroom.subject import subject_seeds

    photos = [photo for seed in subject_seeds("test", 77, 6) for photo in photograph(seed, 3, 64)]
    judged = load_judge().judge([Image.fromarray(photo.image) for photo in photos])
    right = {
        "class": [photo.labels.subject.class_word for photo in photos],
        "scene": [photo.labels.view.scene for photo in photos],
        "pose": [photo.labels.view.pose for photo in photos],
    }
    for factor, words in right.items():
        assert sum(one == other for one, other in zip(judged.words[factor], words, strict=True)) >= 15, factor
    similarity = judged.identity @ judged.identity.T
    own = [float(similarity[i, i + 1]) for i in range(0, 18, 3)]
    others = [float(similarity[i, (i + 4) % 18]) for i in range(0, 18, 3)]
    assert sum(own) > sum(others) + 1.5


def test_sizes() -> None:
    assert sum(p.numel() for p in JudgeNetwork(JudgeSize()).parameters()) * 2 < 1_500_000
