"""A generator whose steps are compiled: what cannot be compiled is drawn all the same, and told."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.generator.running_generator import generator_settings, pixels, running, wait_until

REQUEST = {"prompt": "a photo of a mug", "width": 16, "height": 16, "seed": 3, "steps": 3, "count": 2}


def test_a_compiler_that_fails_costs_no_picture(
    model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = {"tiny": model_folders["tiny"]}

    def broken(function: object, **options: object) -> object:
        def call(*inputs: object) -> object:
            raise RuntimeError("no C++ compiler")

        return call

    with running(generator_settings(models, tmp_path / "store", compile="off")) as generator:
        wanted = [pixels(image.png) for image in generator.draw(**REQUEST)]
    monkeypatch.setattr(torch, "compile", broken)
    for variable in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(variable, "")
    folder = tmp_path / "compiled"
    settings = generator_settings(models, tmp_path / "store", compile="on", compile_cache_folder=str(folder), slots=2)
    with running(settings) as generator:
        given = [pixels(image.png) for image in generator.draw(**REQUEST)]
        wait_until(lambda: generator.metric("compilations_total", outcome="FAILED") >= 2)
        again = [pixels(image.png) for image in generator.draw(**REQUEST)]
        assert generator.metric("compilations_total", outcome="OK") == 0
    assert {place.name for place in folder.iterdir()} == {"inductor", "triton"}
    for found in (given, again):
        for one, other in zip(found, wanted, strict=True):
            assert np.abs(one - other).max() <= 1
