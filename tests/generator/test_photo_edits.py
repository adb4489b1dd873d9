"""Photos as the start of pictures, and as parts of them, over the wire."""

import hashlib
import io
from pathlib import Path
from typing import Any

import diffusers
import grpc
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from detex_diffusion.base_model import BaseModel
from detex_diffusion.latents import encode_images, to_pixels
from detex_generator.request.provenance import read_provenance
from detex_protos.v1.generator_pb2 import Edit, EditKind
from tests.generator.running_generator import (
    RunningGenerator,
    Solver,
    pixels,
    refusal_of,
    signal_to_noise_decibels,
)

IMAGE_TO_IMAGE = EditKind.EDIT_KIND_IMAGE_TO_IMAGE
INPAINT = EditKind.EDIT_KIND_INPAINT
KEEP_PRODUCT = EditKind.EDIT_KIND_KEEP_PRODUCT
SIZE = (32, 32)
PRODUCT = (8, 4, 24, 28)
SCHEDULERS = {
    Solver.SOLVER_DDIM: diffusers.DDIMScheduler,
    Solver.SOLVER_EULER: diffusers.EulerDiscreteScheduler,
    Solver.SOLVER_DPM_SOLVER_PP_2M: diffusers.DPMSolverMultistepScheduler,
}


def photo(size: tuple[int, int] = SIZE) -> Image.Image:
    rng = np.random.default_rng(5)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return coarse.resize(size, Image.Resampling.BICUBIC)


def box_mask(box: tuple[int, int, int, int] = PRODUCT, size: tuple[int, int] = SIZE) -> Image.Image:
    mask = Image.new("L", size, 0)
    mask.paste(255, box)
    return mask


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def cut_out() -> bytes:
    image = photo().convert("RGBA")
    image.putalpha(box_mask())
    return png(image)


def inside(picture: NDArray[np.int16], box: tuple[int, int, int, int] = PRODUCT) -> NDArray[np.int16]:
    left, top, right, bottom = box
    return picture[top:bottom, left:right]


REQUEST: dict[str, Any] = {
    "prompt": "a red mug on a beach",
    "negative_prompt": "snow",
    "seed": 11,
    "steps": 10,
    "guidance_scale": 5.0,
    "width": 32,
    "height": 32,
}


def peer(folder: Path, kind: type, solver: int, latents: torch.Tensor, **arguments: Any) -> NDArray[np.int16]:
    """What a pipeline of diffusers draws from the same latents; given as latents, for it would sample them."""
    plain = diffusers.StableDiffusionPipeline.from_pretrained(folder, image_encoder=None, safety_checker=None)
    pipeline = kind(**plain.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    overrides = {"clip_sample": False} if solver == Solver.SOLVER_DDIM else {}
    pipeline.scheduler = SCHEDULERS[solver].from_config(pipeline.scheduler.config, **overrides)
    drawn = pipeline(
        prompt=REQUEST["prompt"],
        negative_prompt=REQUEST["negative_prompt"],
        guidance_scale=REQUEST["guidance_scale"],
        num_inference_steps=REQUEST["steps"],
        generator=torch.Generator("cpu").manual_seed(REQUEST["seed"]),
        image=latents,
        **arguments,
    ).images[0]
    return np.asarray(drawn, dtype=np.int16)


@pytest.mark.parametrize("solver", list(SCHEDULERS))
@pytest.mark.parametrize("strength", [0.35, 1.0])
def test_image_to_image_is_that_of_diffusers(
    generator: RunningGenerator, model_folders: dict[str, Path], base_model: BaseModel, solver: int, strength: float
) -> None:
    edit = Edit(kind=IMAGE_TO_IMAGE, image=png(photo()), strength=strength)
    (drawn,) = generator.draw(**REQUEST, solver=solver, edit=edit)
    latents = encode_images(base_model.vae, to_pixels([photo()]))
    pipeline = diffusers.StableDiffusionImg2ImgPipeline
    wanted = peer(model_folders["tiny"], pipeline, solver, latents, strength=strength)
    assert signal_to_noise_decibels(pixels(drawn.png), wanted) >= 50


@pytest.mark.parametrize(("solver", "strength"), [(s, 1.0) for s in SCHEDULERS] + [(Solver.SOLVER_DDIM, 0.5)])
def test_inpainting_is_that_of_diffusers_and_leaves_the_rest_alone(
    generator: RunningGenerator, model_folders: dict[str, Path], base_model: BaseModel, solver: int, strength: float
) -> None:
    edit = Edit(kind=INPAINT, image=png(photo()), mask=png(box_mask()), strength=strength)
    (image,) = generator.draw(**REQUEST, solver=solver, edit=edit)
    drawn, original = pixels(image.png), np.asarray(photo(), dtype=np.int16)
    latents = encode_images(base_model.vae, to_pixels([photo()]))
    wanted = peer(
        model_folders["tiny"],
        diffusers.StableDiffusionInpaintPipeline,
        solver,
        latents,
        strength=strength,
        mask_image=box_mask(),
        masked_image_latents=latents,
        height=32,
        width=32,
    )
    within = (PRODUCT[0] + 2, PRODUCT[1] + 2, PRODUCT[2] - 2, PRODUCT[3] - 2)
    assert signal_to_noise_decibels(inside(drawn, within), inside(wanted, within)) >= 45
    assert signal_to_noise_decibels(inside(drawn, within), inside(original, within)) < 30
    outside = np.asarray(box_mask()) == 0
    assert bool((drawn[outside] == original[outside]).all())


@pytest.mark.parametrize("size", [(32, 32), (75, 50), (40, 96)])
def test_the_product_stays_bit_for_bit_at_the_size_of_its_photo(
    generator: RunningGenerator, size: tuple[int, int]
) -> None:
    box = (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4)
    edit = Edit(kind=KEEP_PRODUCT, image=png(photo(size)), mask=png(box_mask(box, size)), shadow=0.5)
    (image,) = generator.draw(prompt="a red mug on a beach", seed=3, edit=edit)
    drawn, original = pixels(image.png), np.asarray(photo(size), dtype=np.int16)
    assert drawn.shape == original.shape
    assert bool((inside(drawn, box) == inside(original, box)).all())
    assert signal_to_noise_decibels(drawn[:4], original[:4]) < 30


def test_a_cut_out_needs_no_mask_and_its_surroundings_do_not_show(generator: RunningGenerator) -> None:
    edit = Edit(kind=KEEP_PRODUCT, image=cut_out())
    (image,) = generator.draw(prompt="[my-mug:background:1]", seed=3, edit=edit)
    drawn = pixels(image.png)
    assert bool((inside(drawn) == inside(np.asarray(photo(), dtype=np.int16))).all())


def test_words_and_seed_draw_the_scene_around_the_product(generator: RunningGenerator, concepts: object) -> None:
    edit = Edit(kind=KEEP_PRODUCT, image=cut_out())
    scenes = [
        pixels(generator.draw(prompt=prompt, seed=seed, edit=edit)[0].png)
        for prompt, seed in (("a mug on a beach", 1), ("a mug in [my-mug:background:1]", 1), ("a mug on a beach", 2))
    ]
    for one, other in ((0, 1), (0, 2)):
        assert signal_to_noise_decibels(scenes[one], scenes[other]) < 40


def test_an_edit_comes_out_the_same_in_any_company(generator: RunningGenerator, concepts: object) -> None:
    edit = Edit(kind=INPAINT, image=png(photo()), mask=png(box_mask()), strength=0.7)
    alone = generator.draw(**REQUEST, edit=edit)[0]
    others = [
        generator.start(**(REQUEST | {"prompt": "[my-bowl] in snow", "seed": seed, "steps": 12 + seed}))
        for seed in range(3)
    ]
    among = generator.draw(**REQUEST, edit=edit)[0]
    for other in others:
        list(other)
    assert signal_to_noise_decibels(pixels(alone.png), pixels(among.png)) >= 50


def test_steps_left_out_are_not_told_as_progress(generator: RunningGenerator) -> None:
    edit = Edit(kind=IMAGE_TO_IMAGE, image=png(photo()), strength=0.5)
    events = list(generator.start(**REQUEST, edit=edit))
    told = [(event.progress.step, event.progress.total_steps) for event in events if event.HasField("progress")]
    assert told[-1] == (5, 5)
    assert sum(event.HasField("image") for event in events) == 1


def test_a_drawing_takes_the_shape_of_its_photo(generator: RunningGenerator) -> None:
    edit = Edit(kind=IMAGE_TO_IMAGE, image=png(photo((128, 32))))
    (image,) = generator.draw(prompt="a mug", seed=1, edit=edit)
    assert pixels(image.png).shape == (8, 32, 3)
    assert (image.provenance.width, image.provenance.height) == (32, 8)


def test_provenance_tells_what_became_of_the_photo(generator: RunningGenerator) -> None:
    image, mask = png(photo()), png(box_mask())
    edit = Edit(kind=KEEP_PRODUCT, image=image, mask=mask, strength=0.75, shadow=0.25)
    (drawn,) = generator.draw(prompt="a mug", seed=1, edit=edit)
    wanted = (hashlib.sha256(image).hexdigest(), hashlib.sha256(mask).hexdigest(), 0.75, 0.25)
    told = drawn.provenance.edit
    assert told.kind == KEEP_PRODUCT
    assert (told.image_sha256, told.mask_sha256, told.strength, told.shadow) == wanted
    written = read_provenance(drawn.png).edit
    assert written is not None
    assert written.kind == "keep_product"
    assert (written.image_sha256, written.mask_sha256, written.strength, written.shadow) == wanted


WRONG: list[tuple[str, Edit, dict[str, str]]] = [
    ("no kind", Edit(image=png(photo())), {"edit.kind": "EDIT_KIND_INPAINT"}),
    ("no photo", Edit(kind=IMAGE_TO_IMAGE), {"edit.image": "an empty file"}),
    ("no picture", Edit(kind=IMAGE_TO_IMAGE, image=b"GIF89a"), {"edit.image": "PNG, JPEG or WebP"}),
    ("cut off", Edit(kind=IMAGE_TO_IMAGE, image=png(photo())[:-30]), {"edit.image": "damaged"}),
    ("no mask", Edit(kind=INPAINT, image=png(photo())), {"edit.mask": "no mask"}),
    (
        "no mask of the product",
        Edit(kind=KEEP_PRODUCT, image=png(photo())),
        {"edit.mask": "white where the product is"},
    ),
    (
        "mask of another size",
        Edit(kind=INPAINT, image=png(photo()), mask=png(box_mask(size=(40, 32)))),
        {"edit.mask": "32 x 32"},
    ),
    (
        "mask of nothing",
        Edit(kind=KEEP_PRODUCT, image=png(photo()), mask=png(Image.new("L", SIZE, 0))),
        {"edit.mask": "all-black"},
    ),
    (
        "mask of everything",
        Edit(kind=KEEP_PRODUCT, image=png(photo()), mask=png(Image.new("L", SIZE, 255))),
        {"edit.mask": "leaves nothing to draw"},
    ),
    (
        "mask without use",
        Edit(kind=IMAGE_TO_IMAGE, image=png(photo()), mask=png(box_mask())),
        {"edit.mask": "EDIT_KIND_IMAGE_TO_IMAGE"},
    ),
    (
        "large photo to keep",
        Edit(kind=KEEP_PRODUCT, image=png(Image.new("RGBA", (4097, 4096))), mask=png(Image.new("1", (4097, 4096), 1))),
        {"edit.image": "at most 16,777,216 pixels"},
    ),
    ("large file", Edit(kind=IMAGE_TO_IMAGE, image=png(photo()) + bytes(32 * 1024**2)), {"edit": "33,554,432 bytes"}),
    ("no strength", Edit(kind=IMAGE_TO_IMAGE, image=png(photo()), strength=0.0), {"edit.strength": "above 0"}),
    ("too strong", Edit(kind=IMAGE_TO_IMAGE, image=png(photo()), strength=1.5), {"edit.strength": "at most 1"}),
    ("not a step", Edit(kind=IMAGE_TO_IMAGE, image=png(photo()), strength=0.05), {"edit.strength": "one step of 10"}),
    ("dark shadow", Edit(kind=KEEP_PRODUCT, image=cut_out(), shadow=2), {"edit.shadow": "0 to 1"}),
    (
        "shadow of nothing",
        Edit(kind=INPAINT, image=png(photo()), mask=png(box_mask()), shadow=0.5),
        {"edit.shadow": "KEEP_PRODUCT"},
    ),
    (
        "another shape",
        Edit(kind=KEEP_PRODUCT, image=png(photo((64, 32))), mask=png(box_mask(size=(64, 32)))),
        {"width": "64 x 32"},
    ),
]


@pytest.mark.parametrize(("edit", "violations"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_edit_is_told_what_is_wrong(
    generator: RunningGenerator, edit: Edit, violations: dict[str, str]
) -> None:
    refusal = refusal_of(generator.start(**REQUEST, edit=edit))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.violations.keys() == violations.keys()
    for field, words in violations.items():
        assert words in refusal.violations[field]
