"""Pictures of a class as the base model draws it: drawn once, kept in the object store, shared by all jobs.

Keys: `prior_images/<digest>/recipe.json` and `prior_images/<digest>/<seed>.png`, where the digest is the SHA-256 of the
recipe: prompt, fingerprint of the base model, size, solver, steps and guidance. The picture of a seed never depends on
how many are wanted, so a job that wants more draws only those that are missing.
"""

import hashlib
import io
import logging
from collections.abc import Callable, Sequence

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import BaseModel as Record
from pydantic import ConfigDict
from torch import Tensor

from detex_core.errors import DataLossError, NotFoundError
from detex_core.object_store import ObjectStore
from detex_diffusion.base_model import BaseModel
from detex_diffusion.latents import encode_images, to_pixels
from detex_diffusion.solver import Solver
from detex_trainer.domain.failures import TrainingStopped
from detex_trainer.domain.prompts import class_prompt
from detex_trainer.learning.training.pictures import draw_pictures, to_png

PREFIX = "prior_images/"
_STEPS = 20
_GUIDANCE_SCALE = 5.0
_BATCH = 8

_log = logging.getLogger(__name__)


class PriorRecipe(Record):
    """All that a picture of the class depends on but its seed.

    Attributes:
        prompt: Plain words.
        base_model_fingerprint: Of the base model that draws.
        height: In pixels.
        width: In pixels.
        solver: How the reverse diffusion is solved.
        steps: Denoising steps.
        guidance_scale: Of classifier-free guidance.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str
    base_model_fingerprint: str
    height: int
    width: int
    solver: Solver = Solver.DPM_SOLVER_PP_2M
    steps: int = _STEPS
    guidance_scale: float = _GUIDANCE_SCALE

    @classmethod
    def of(cls, base_model: BaseModel, class_word: str) -> "PriorRecipe":
        """The recipe for a class on a base model, at the base model's own size."""
        return cls(
            prompt=class_prompt(class_word),
            base_model_fingerprint=base_model.fingerprint,
            height=base_model.height,
            width=base_model.width,
        )

    @property
    def prefix(self) -> str:
        """What the keys of its pictures begin with."""
        return f"{PREFIX}{hashlib.sha256(self.model_dump_json().encode()).hexdigest()}/"


def prior_pictures(
    store: ObjectStore, base_model: BaseModel, class_word: str, count: int, should_stop: Callable[[], bool]
) -> list[Image.Image]:
    """Pictures of a class with the seeds 0 to count - 1, from the object store as far as they are there.

    Args:
        store: Where they are kept.
        base_model: Draws what is missing.
        class_word: Plain words for the class.
        count: How many.
        should_stop: Asked before each batch.

    Raises:
        TrainingStopped: `should_stop` said so; what was drawn by then is kept.
        DetexError: As of the object store.
    """
    recipe = PriorRecipe.of(base_model, class_word)
    keys = [f"{recipe.prefix}{seed:04d}.png" for seed in range(count)]
    present = {info.key for info in store.list(recipe.prefix)}
    pictures = {seed: _read(store, key) for seed, key in enumerate(keys) if key in present}
    missing = [seed for seed in range(count) if pictures.get(seed) is None]
    if missing:
        _log.info("drawing %d pictures of %r for prior preservation", len(missing), recipe.prompt)
        store.put(f"{recipe.prefix}recipe.json", recipe.model_dump_json().encode(), content_type="application/json")
    for start in range(0, len(missing), _BATCH):
        if should_stop():
            raise TrainingStopped
        seeds = missing[start : start + _BATCH]
        drawn = draw_pictures(
            base_model,
            [recipe.prompt] * len(seeds),
            {},
            seeds=seeds,
            steps=recipe.steps,
            guidance_scale=recipe.guidance_scale,
            solver=recipe.solver,
        )
        for seed, picture in zip(seeds, drawn, strict=True):
            store.put(keys[seed], to_png(picture), content_type="image/png")
            pictures[seed] = picture
    return [found for seed in range(count) if (found := pictures[seed]) is not None]


def prior_latents(base_model: BaseModel, pictures: Sequence[Image.Image], side: int) -> Tensor:
    """Latents (K, C, h, h) of K pictures, cut to squares of `side` pixels as photos are."""
    squares = [ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS) for picture in pictures]
    batches = [squares[start : start + _BATCH] for start in range(0, len(squares), _BATCH)]
    return torch.cat([encode_images(base_model.vae, to_pixels(batch)).float() for batch in batches])


def _read(store: ObjectStore, key: str) -> Image.Image | None:
    """A picture that was kept, or None where it is damaged or was deleted since it was listed."""
    try:
        with Image.open(io.BytesIO(store.get(key))) as picture:
            return picture.convert("RGB")
    except NotFoundError:
        _log.info("%s was deleted meanwhile; it is drawn again", key)
        return None
    except (UnidentifiedImageError, OSError, DataLossError):
        _log.warning("%s is no picture; it is drawn again", key)
        return None
