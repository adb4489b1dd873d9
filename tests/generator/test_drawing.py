"""What is drawn: events, equality with diffusers, and independence of whatever else is drawn at the same time."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from detex_core import __version__
from detex_core.artifact import StoredManifest
from detex_diffusion.base_model import BaseModel
from detex_generator.request.provenance import read_provenance
from detex_protos.v1.generator_pb2 import ListBaseModelsRequest, ListResidentConceptsRequest
from tests.generator.running_generator import RunningGenerator, Solver, pixels, signal_to_noise_decibels, wait_until

pytestmark = pytest.mark.slow

SCHEDULERS = {
    Solver.SOLVER_DDIM: diffusers.DDIMScheduler,
    Solver.SOLVER_EULER: diffusers.EulerDiscreteScheduler,
    Solver.SOLVER_DPM_SOLVER_PP_2M: diffusers.DPMSolverMultistepScheduler,
    Solver.SOLVER_EULER_ANCESTRAL: diffusers.EulerAncestralDiscreteScheduler,
}
CONSISTENCY_SCHEDULERS = {Solver.SOLVER_LCM: diffusers.LCMScheduler, Solver.SOLVER_TCD: diffusers.TCDScheduler}


@pytest.fixture(scope="module")
def pipelines(model_folders: dict[str, Path]) -> dict[str, Any]:
    return {
        name: diffusers.StableDiffusionPipeline.from_pretrained(folder, image_encoder=None)
        for name, folder in model_folders.items()
    }


def test_events_of_a_request_come_in_order(generator: RunningGenerator) -> None:
    events = list(generator.start(prompt="a red mug", count=2, steps=5, seed=3, preview_interval_steps=2))
    assert events[0].HasField("queued")
    assert len(events[0].queued.request_id) == 32
    assert sum(event.HasField("queued") for event in events) == 1
    for index in range(2):
        steps = [e.progress.step for e in events if e.HasField("progress") and e.progress.image_index == index]
        assert steps[-1] == 5
        assert steps == sorted(set(steps))
        previews = [e.preview.step for e in events if e.HasField("preview") and e.preview.image_index == index]
        assert previews[0] == 2
        assert set(previews) <= {2, 4}
        images = [e.image for e in events if e.HasField("image") and e.image.image_index == index]
        assert [image.seed for image in images] == [3 + index]
    assert all(e.progress.total_steps == 5 for e in events if e.HasField("progress"))
    preview = next(event.preview for event in events if event.HasField("preview"))
    assert pixels(preview.png).shape == (16, 16, 3)


def test_provenance_tells_all_that_was_used(generator: RunningGenerator, concepts: dict[str, StoredManifest]) -> None:
    prompt = "[my-mug] with [my-bowl:pose:1] on a beach, 写真"
    (image,) = generator.draw(
        prompt=prompt,
        negative_prompt="snow",
        seed=2**32 - 1,
        steps=3,
        guidance_scale=2.5,
        solver=Solver.SOLVER_EULER,
        width=24,
        height=32,
    )
    provenance = read_provenance(image.png)
    assert provenance.model_dump(exclude_none=True) == {
        "prompt": prompt,
        "negative_prompt": "snow",
        "base_model": "tiny",
        "base_model_fingerprint": concepts["my-mug"].manifest.base_model_fingerprint,
        "concepts": tuple(
            {"name": name, "version": concepts[name].manifest.version, "manifest_sha256": concepts[name].sha256}
            for name in ("my-mug", "my-bowl")
        ),
        "seed": 2**32 - 1,
        "steps": 3,
        "guidance_scale": 2.5,
        "solver": "euler",
        "width": 24,
        "height": 32,
        "generator_version": __version__,
    }
    sent = image.provenance
    assert (sent.prompt, sent.seed, sent.solver, sent.guidance_scale) == (prompt, 2**32 - 1, Solver.SOLVER_EULER, 2.5)
    assert [concept.reference.version for concept in sent.concepts] == [c.version for c in provenance.concepts]
    assert pixels(image.png).shape == (32, 24, 3)


def test_the_same_request_gives_the_same_bytes(generator: RunningGenerator, concepts: object) -> None:
    request: dict[str, Any] = {"prompt": "[my-mug] on a table", "seed": 5, "steps": 4}
    assert generator.draw(**request)[0].png == generator.draw(**request)[0].png


def test_an_image_can_be_drawn_again_from_its_provenance(generator: RunningGenerator, concepts: object) -> None:
    third = generator.draw(prompt="[my-mug] on a table", negative_prompt="[my-bowl]", count=3)[2]
    told = third.provenance
    (again,) = generator.draw(
        prompt=told.prompt,
        negative_prompt=told.negative_prompt,
        base_model=told.base_model,
        seed=told.seed,
        steps=told.steps,
        guidance_scale=told.guidance_scale,
        solver=told.solver,
        width=told.width,
        height=told.height,
        concept_versions={concept.reference.name: concept.reference.version for concept in told.concepts},
    )
    assert signal_to_noise_decibels(pixels(again.png), pixels(third.png)) >= 50
    assert again.provenance == told


def test_a_seed_is_chosen_and_told_where_none_is_given(generator: RunningGenerator) -> None:
    seeds = {generator.draw(prompt="a mug", steps=1)[0].seed for _ in range(3)}
    assert len(seeds) == 3


@pytest.mark.parametrize("solver", [*SCHEDULERS, *CONSISTENCY_SCHEDULERS])
@pytest.mark.parametrize("guidance_scale", [1.0, 6.0])
@pytest.mark.parametrize("model", ["tiny", "other"])
def test_plain_prompts_equal_diffusers(
    generator: RunningGenerator, pipelines: dict[str, Any], model: str, guidance_scale: float, solver: int
) -> None:
    pipeline = pipelines[model]
    scheduler = (SCHEDULERS | CONSISTENCY_SCHEDULERS)[solver]
    pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        "a red mug on a table",
        negative_prompt="snow",
        num_inference_steps=7,
        guidance_scale=guidance_scale,
        generator=torch.Generator("cpu").manual_seed(11),
        eta=0.3 if solver == Solver.SOLVER_TCD else 0.0,
        output_type="np",
    ).images[0]
    (image,) = generator.draw(
        prompt="a red mug on a table",
        negative_prompt="snow",
        base_model=model,
        steps=7,
        guidance_scale=guidance_scale,
        seed=11,
        solver=solver,
    )
    # Half a level of rounding, and 1e-4 of floating point.
    assert np.abs(pixels(image.png) - expected * 255).max() <= 0.5 + 255e-4


def mixed_requests() -> Iterator[dict[str, Any]]:
    """Requests that differ in everything that requests can differ in."""
    prompts = ["[my-mug] on a beach", "a photo of a [my-bowl] and [my-mug:background:2]", "a blue vase", "[my-lamp]"]
    solvers = itertools.cycle(SCHEDULERS)
    for seed, (prompt, steps) in enumerate(zip(prompts * 3, (40, 55, 30, 45, 60, 35) * 2, strict=True)):
        yield {
            "prompt": prompt,
            "negative_prompt": "" if seed % 3 else "snow and [my-lamp:pose:0]",
            "seed": seed,
            "steps": steps,
            "guidance_scale": (0.0, 1.0, 3.0, 7.5)[seed % 4 if seed < 8 else 3],
            "solver": next(solvers),
            "width": 24 if seed % 5 == 4 else 16,
        }


def test_company_does_not_change_an_image(generator: RunningGenerator, concepts: object) -> None:
    requests = list(mixed_requests())
    alone = [generator.draw(**request)[0].png for request in requests]
    assert len(set(alone)) == len(requests)
    before = generator.metric("unet_passes_total"), generator.metric("image_steps_total")
    with ThreadPoolExecutor(len(requests)) as pool:
        together = [images[0].png for images in pool.map(lambda request: generator.draw(**request), requests)]
    passes = generator.metric("unet_passes_total") - before[0]
    steps = generator.metric("image_steps_total") - before[1]
    assert steps == sum(request["steps"] for request in requests)
    assert steps / passes > 2, "the images hardly ever shared a pass, so this shows nothing"
    for one, other in zip(alone, together, strict=True):
        assert signal_to_noise_decibels(pixels(one), pixels(other)) >= 50
        assert read_provenance(one) == read_provenance(other)


def test_images_of_a_request_take_seeds_in_a_row(generator: RunningGenerator, concepts: object) -> None:
    images = generator.draw(prompt="[my-lamp] in snow", seed=20, count=3, steps=6)
    assert [image.seed for image in images] == [20, 21, 22]
    for image in images:
        (single,) = generator.draw(prompt="[my-lamp] in snow", seed=image.seed, steps=6)
        assert signal_to_noise_decibels(pixels(single.png), pixels(image.png)) >= 50
    assert len({image.png for image in images}) == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("[my-mug]", "a mug"),
        ("[my-mug]", "[my-bowl]"),
        ("[my-mug:pose:0]", "[my-mug:pose:1]"),
        ("[my-mug] in [my-mug:background:0]", "[my-mug] in [my-bowl:background:0]"),
    ],
)
def test_every_word_of_a_concept_counts(generator: RunningGenerator, concepts: object, one: str, other: str) -> None:
    drawn = [pixels(generator.draw(prompt=prompt, seed=1, steps=4)[0].png) for prompt in (one, other)]
    assert signal_to_noise_decibels(*drawn) < 45


def test_negative_prompts_may_hold_words_of_concepts(generator: RunningGenerator, concepts: object) -> None:
    drawn = [
        pixels(generator.draw(prompt="a vase", negative_prompt=negative, seed=1, steps=4, guidance_scale=9)[0].png)
        for negative in ("", "[my-mug]")
    ]
    assert signal_to_noise_decibels(*drawn) < 45


@pytest.mark.parametrize(("guidance_scale", "rows"), [(0.0, 1), (1.0, 1), (1.5, 2)])
def test_guidance_takes_a_second_row(generator: RunningGenerator, guidance_scale: float, rows: int) -> None:
    before = generator.metric("batch_rows_sum")
    generator.draw(prompt="a mug", steps=5, guidance_scale=guidance_scale)
    assert generator.metric("batch_rows_sum") - before == 5 * rows


def test_tenants_see_their_own_concepts_only(generator: RunningGenerator, concepts: object) -> None:
    assert generator.draw("acme", prompt="[secret]", steps=1)[0].provenance.concepts[0].reference.name == "secret"
    residents = {
        tenant: {
            resident.reference.name
            for resident in generator.stub.ListResidentConcepts(
                ListResidentConceptsRequest(), metadata=[("detex-tenant", tenant)]
            ).concepts
        }
        for tenant in ("acme", "default")
    }
    assert residents["acme"] == {"secret"}
    assert "secret" not in residents["default"]


def test_base_models_are_listed(generator: RunningGenerator, base_models: dict[str, BaseModel]) -> None:
    listed = generator.stub.ListBaseModels(ListBaseModelsRequest()).base_models
    assert [(each.name, each.fingerprint, each.prediction_type, each.is_default) for each in listed] == [
        ("other", base_models["other"].fingerprint, "v_prediction", False),
        ("tiny", base_models["tiny"].fingerprint, "epsilon", True),
    ]
    assert {(each.width, each.height) for each in listed} == {(16, 16)}


def test_metrics_count_what_was_drawn(generator: RunningGenerator) -> None:
    names = ("requests_total", "images_total", "request_seconds_count")
    labels = ({"outcome": "OK"}, {"base_model": "tiny"}, {})
    before = [generator.metric(name, **label) for name, label in zip(names, labels, strict=True)]
    generator.draw(prompt="a mug", count=3, steps=2)
    wait_until(lambda: generator.metric("slots_in_use") == 0)
    after = [generator.metric(name, **label) for name, label in zip(names, labels, strict=True)]
    assert np.subtract(after, before).tolist() == [1, 3, 1]
    assert generator.metric("waiting_images") == 0
    assert generator.metric("prompt_cache_bytes") > 0
