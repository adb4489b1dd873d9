"""Concepts that train the UNet itself: drawn with a UNet of their own, beside those that share the base model's."""

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import grpc
import numpy as np
import pytest
import torch

from detex_core.artifact import StoredManifest
from detex_core.object_store import FolderStore
from detex_core.prompt import parse_prompt
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.text import encode, tokenize, word_embeddings
from detex_diffusion.unet_delta import unet_with_delta
from tests.generator.published_concepts import publish, random_concept
from tests.generator.running_generator import (
    RunningGenerator,
    generator_settings,
    pixels,
    refusal_of,
    running,
    signal_to_noise_decibels,
)


def trained_concept(base_model: BaseModel, seed: int, *, share: float = 0.2, only: str = "") -> Concept:
    """The UNet's parameters moved by a share of their size; only those whose name contains `only`."""
    generator = torch.Generator().manual_seed(seed)
    concept = random_concept(base_model, seed)
    delta = {
        name: share * parameter.std().nan_to_num(1.0) * torch.randn(parameter.shape, generator=generator)
        for name, parameter in base_model.unet.named_parameters()
        if only in name
    }
    return replace(concept, attributes={}, key_value={}, unet_delta=delta)


@pytest.fixture(scope="module")
def trained(base_model: BaseModel) -> dict[str, Concept]:
    return {
        "whole": trained_concept(base_model, 11),
        "partly": trained_concept(base_model, 12, share=1.0, only="attn2"),
    }


@pytest.fixture(scope="module")
def generator(
    model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, base_model: BaseModel, trained: Any
) -> Iterator[RunningGenerator]:
    """A generator with two concepts of the UNet and one of words, which has room for no UNet."""
    folder = tmp_path_factory.mktemp("store")
    store = FolderStore(folder)
    for name, concept in trained.items():
        publish(store, base_model, name, concept)
    publish(store, base_model, "my-mug", random_concept(base_model, 1))
    with running(generator_settings({"tiny": model_folders["tiny"]}, folder, unet_cache_bytes=0)) as started:
        yield started


def diffusers_picture(
    folder: Path, base_model: BaseModel, name: str, concept: Concept, prompt: str, negative: str, seed: int
) -> np.ndarray[Any, Any]:
    """What diffusers' pipeline draws with a UNet whose weights were overwritten."""
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, image_encoder=None)
    weights = {key: tensor.clone() for key, tensor in base_model.unet.state_dict().items()}
    for key, delta in concept.unet_delta.items():
        assert isinstance(delta, torch.Tensor)
        weights[key] += delta
    pipeline.unet.load_state_dict(weights)
    pipeline.set_progress_bar_config(disable=True)
    hidden = []
    for text in (prompt, negative):
        tokenized = tokenize(parse_prompt(text), {name: concept}, base_model.tokenizer)
        with torch.no_grad():
            hidden.append(encode(base_model, [tokenized], [word_embeddings(tokenized, {name: concept})]))
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    image = pipeline(
        prompt_embeds=hidden[0],
        negative_prompt_embeds=hidden[1],
        num_inference_steps=4,
        guidance_scale=4.0,
        generator=torch.Generator().manual_seed(seed),
    ).images[0]
    return np.asarray(image, dtype=np.int16)


def request(prompt: str, seed: int = 5) -> dict[str, object]:
    return {"prompt": prompt, "negative_prompt": "snow", "seed": seed, "steps": 4, "guidance_scale": 4.0, "solver": 1}


@pytest.mark.parametrize("name", ["whole", "partly"])
def test_pictures_are_those_of_a_plain_unet_with_overwritten_weights(
    generator: RunningGenerator, model_folders: dict[str, Path], base_model: BaseModel, trained: Any, name: str
) -> None:
    prompt = f"a photo of a [{name}] on a beach"
    (image,) = generator.draw(**request(prompt))
    expected = diffusers_picture(model_folders["tiny"], base_model, name, trained[name], prompt, "snow", 5)
    assert signal_to_noise_decibels(pixels(image.png), expected) > 45
    without = replace(trained[name], unet_delta={})
    other = diffusers_picture(model_folders["tiny"], base_model, name, without, prompt, "snow", 5)
    assert signal_to_noise_decibels(pixels(image.png), other) < 40


def test_mixed_company_changes_no_picture(generator: RunningGenerator) -> None:
    prompts = ["a [whole]", "a [partly] in snow", "a [my-mug] in [my-mug:background:0]", "a mug", "[whole] at night"]
    alone = [generator.draw(**request(prompt, seed))[0].png for seed, prompt in enumerate(prompts)]
    with ThreadPoolExecutor(len(prompts)) as pool:
        together = list(pool.map(lambda each: generator.draw(**request(each[1], each[0])), enumerate(prompts)))
    for before, (after,) in zip(alone, together, strict=True):
        assert signal_to_noise_decibels(pixels(before), pixels(after.png)) > 45
    assert len({pixels(png).tobytes() for png in alone}) == len(prompts)


def test_a_concept_of_words_may_stand_beside_one_with_a_unet(generator: RunningGenerator) -> None:
    (both,) = generator.draw(**request("a [whole] in [my-mug:background:0]"))
    (one,) = generator.draw(**request("a [whole]"))
    assert signal_to_noise_decibels(pixels(both.png), pixels(one.png)) < 40


def test_two_unets_in_one_picture_are_refused(generator: RunningGenerator) -> None:
    refusal = refusal_of(generator.start(**request("a [whole] with a [partly]")))
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refusal.reason == "SEVERAL_UNETS"
    assert "'whole' and 'partly'" in refusal.message


def test_a_unet_that_is_kept_is_made_once(
    model_folders: dict[str, Path], tmp_path: Path, base_model: BaseModel, trained: dict[str, Concept]
) -> None:
    store = FolderStore(tmp_path)
    stored: dict[str, StoredManifest] = {
        name: publish(store, base_model, name, concept) for name, concept in trained.items()
    }
    assert stored["whole"].manifest.unet.form == "full"
    _, size_bytes = unet_with_delta(base_model.unet, copy.copy(trained["partly"].unet_delta))
    settings = generator_settings({"tiny": model_folders["tiny"]}, tmp_path, unet_cache_bytes=size_bytes)
    with running(settings) as kept:
        for seed in (1, 2):
            kept.draw(**request("a [partly]", seed))
        assert kept.metric("unet_cache_misses_total") == 1
        assert kept.metric("unet_cache_bytes") == size_bytes
        kept.draw(**request("a [whole]"))  # larger than the cache: serves, and is not kept
        assert kept.metric("unet_cache_bytes") == size_bytes
        assert kept.metric("unet_cache_misses_total") == 2
