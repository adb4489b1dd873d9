"""Training with everything on one device: photos that arrive meanwhile, and a model to go on from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from benchmarks.showroom.base_model import small_shards
from benchmarks.showroom.base_model.architecture import TINY
from benchmarks.showroom.base_model.device_corpus import DeviceCorpus
from benchmarks.showroom.base_model.device_training import DeviceRun, train_on_device
from benchmarks.showroom.base_model.masters import Masters
from benchmarks.showroom.base_model.recipe import Recipe
from benchmarks.showroom.base_model.small_shards import render_small_shards, shard_path

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(small_shards, "SUBJECTS", 4)
        small_shards._render(folder, "train", TINY.picture_pixels, range(2), float("inf"))
    return folder


def test_shards_are_rendered_once_and_until_the_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_shards, "SUBJECTS", 1)
    render_small_shards(tmp_path, "train", 32, processes=2, seconds=600, count=3)
    written = {path: path.read_bytes() for path in sorted(tmp_path.glob("*.npz"))}
    assert set(written) == {shard_path(tmp_path, "train", 32, number) for number in range(3)}
    shard_path(tmp_path, "train", 32, 1).unlink()
    render_small_shards(tmp_path, "train", 32, processes=1, seconds=600, count=3)
    assert {path: path.read_bytes() for path in sorted(tmp_path.glob("*.npz"))} == written
    render_small_shards(tmp_path, "train", 32, processes=1, seconds=0)
    assert len(list(tmp_path.glob("*.npz"))) == 3


def test_photos_that_arrive_are_taken_in(shards: Path) -> None:
    corpus = DeviceCorpus(shards, TINY.picture_pixels, CPU, most_photos=10)
    corpus.look()
    assert corpus.photos == 8  # the second shard finds no room
    index = torch.arange(2)
    plain, mirrored = (corpus.pixels(index, torch.full((2,), flag)) for flag in (False, True))
    assert torch.equal(plain.flip(-1), mirrored)
    assert corpus.tokens(index).shape == (2, 48)


def test_a_model_is_trained_and_another_goes_on_from_it(shards: Path, tmp_path: Path) -> None:
    run = DeviceRun(
        recipe=replace(Recipe(), size=TINY),
        shards=shards,
        work=tmp_path / "first",
        out=tmp_path / "model",
        device=CPU,
        seconds=6.0,
        first_photos=16,
        batch=4,
        is_compiled=False,
    )
    train_on_device(run)
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "model", torch_dtype=torch.float32)
    picture = pipeline("a red mug with a badge", num_inference_steps=2, height=64, width=64, output_type="pt").images
    assert bool(torch.isfinite(torch.as_tensor(picture)).all())
    onward = replace(run, start=tmp_path / "model", work=tmp_path / "second", out=tmp_path / "next", rate=1e-9)
    train_on_device(onward)
    before, after = (
        UNet2DConditionModel.from_pretrained(tmp_path / name / "unet").state_dict() for name in ("model", "next")
    )
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-3, rtol=1e-2)


def test_masters_add_what_bfloat16_cannot() -> None:
    parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    masters = Masters([([parameter], [torch.ones(3)], 1e-4)], average=0.9)
    for _ in range(40):
        parameter.grad = torch.ones_like(parameter)
        masters.update(1.0)
    assert float(masters.values[0].mean()) == pytest.approx(1 - 40 * 1e-4, rel=1e-3)
    assert float(parameter.float().mean()) == pytest.approx(1 - 40 * 1e-4, abs=4e-3)
    assert float(masters.averages[0].mean()) > float(masters.values[0].mean())
