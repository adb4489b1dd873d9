"""The benchmark of full-size base models, on a small one: what is compared computes the same, and all is written."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline

from benchmarks.full_size.__main__ import NO_GPU_STATUS, main
from benchmarks.full_size.architectures import SMALL_XL
from benchmarks.full_size.candidates import Bench
from benchmarks.full_size.random_folder import write_folder
from benchmarks.gpu.__main__ import main as gpu_main
from detex_core.prompt import parse_prompt
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import load_base_model
from detex_diffusion.text import encode_text, tokenize

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@torch.inference_mode()
def test_candidates_compute_the_same() -> None:
    bench = Bench(SMALL_XL, CPU, torch.float32, "auto")
    mixed = bench.workload(3, 3)
    wanted = bench.diffusers(bench.plain, mixed)()
    for steps in bench.steps.values():
        torch.testing.assert_close(bench.detex(steps, mixed)(), wanted, rtol=1e-3, atol=1e-3)
    other = bench.diffusers(bench.plain, bench.workload(3, 3))()
    assert not torch.allclose(other, wanted, rtol=1e-2, atol=1e-2)
    bench.swap()()
    assert torch.equal(bench.diffusers(bench.plain, mixed)(), wanted)  # the weights are swapped for their own


def test_a_dry_run_writes_all_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    arguments = ["--device", "cpu", "--dtype", "float32", "--model", "small-xl", "--batches", "1"]
    arguments += ["--compiled-batches", "--turns", "1", "--breakdown-batch", "1", "--out", str(path)]
    monkeypatch.setattr("sys.argv", ["full_size", *arguments])
    assert main() == 0
    rows = {row["what"]: row for row in json.loads(path.read_text())["rows"]}
    speeds = [row["value"] for row in rows.values() if row["unit"] == "images/s"]
    assert len(speeds) == 3
    assert all(speed > 0 for speed in speeds)
    assert sum("against the fastest peer" in what for what in rows) == 2
    assert sum("against what was before" in what for what in rows) == 3
    shares = [row["value"] for what, row in rows.items() if "share of" in what]
    assert sum(shares) == pytest.approx(1.0)


def test_what_no_time_is_left_for_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    arguments = ["--device", "cpu", "--dtype", "float32", "--model", "small-xl", "--seconds", "-1", "--out", str(path)]
    monkeypatch.setattr("sys.argv", ["full_size", *arguments])
    assert main() == 0
    rows = json.loads(path.read_text())["rows"]
    assert [row["value"] for row in rows] == [None] * 6
    assert all("the time for all was over" in row["note"] for row in rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure on")
@pytest.mark.parametrize("run", [main, gpu_main])
def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark"])
    assert run() == NO_GPU_STATUS
    assert "torch finds no GPU here" in capsys.readouterr().err


def test_a_folder_of_random_weights_is_a_base_model(tmp_path: Path) -> None:
    folder = tmp_path / "xl"
    write_folder(folder, SMALL_XL, torch.float32, CPU)
    model = load_base_model(BaseModelSettings(name="random", source=str(folder)))
    assert (model.height, model.pixels_per_latent, model.text.widths) == (64, 8, (32, 32))
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    with torch.no_grad():
        hidden, _, pooled, _ = pipeline.encode_prompt("a red mug")
        text = encode_text(model, [tokenize(parse_prompt("a red mug"), {}, model.tokenizer)])
    assert torch.equal(text.hidden, hidden)
    assert torch.equal(text.pooled, pooled)
