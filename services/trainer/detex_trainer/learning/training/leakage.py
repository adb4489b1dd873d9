"""A cheap probe of leakage: whether what surrounded the subject in its photos appears where nobody asked for it.

Pictures of "a photo of a [name]" are drawn from fixed noise and compared, by the base model's image encoder, with the
photos' surroundings alone. What pictures of the plain class word from the same noise have in common with them anyway is
taken off.

Legend: N photos, Q pictures, P width of image features.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.nn import functional

from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.solver import Solver
from detex_trainer.domain.prompts import PREFIXES, class_prompt
from detex_trainer.learning.photos.dataset import PhotoSet
from detex_trainer.learning.training.pictures import draw_pictures

_SEEDS = (11, 12, 13)
_STEPS = 8
_MOST_PHOTOS = 8


class LeakageProbe:
    """Compares pictures of a concept with the surroundings in its photos."""

    def __init__(self, base_model: BaseModel, photo_set: PhotoSet, name: str, class_word: str) -> None:
        """Draw and encode what pictures are compared with.

        Args:
            base_model: Without an image encoder, or with photos that are all subject, nothing can be said.
            photo_set: The first 8 photos and where their subjects are.
            name: Of the concept.
            class_word: What the subject is.
        """
        self._base_model = base_model
        self._name = name
        self._surroundings: Tensor | None = None
        pairs = zip(photo_set.pictures[:_MOST_PHOTOS], photo_set.subjects[:_MOST_PHOTOS], strict=False)
        backgrounds = [each for each in (surroundings(*pair) for pair in pairs) if each is not None]
        if base_model.image_encoder is None or not backgrounds:
            return
        surrounding = base_model.image_features(backgrounds)  # (N, P)
        plain = base_model.image_features(self._draw(class_prompt(class_word), {}))  # (Q, P)
        self._middle = torch.cat([surrounding, plain]).mean(dim=0)
        self._surroundings = surrounding - self._middle
        self._common = self._likeness(plain)

    def similarity(self, concept: Concept) -> float | None:
        """How much more pictures of a concept resemble the surroundings of its photos than pictures of the class do.

        Returns:
            Difference of mean cosine similarities to the nearest surroundings, 0 where there is none, about 1 where the
            surroundings are drawn again; None where nothing can be said.
        """
        if self._surroundings is None:
            return None
        fit = concept.to(self._base_model.device, self._base_model.dtype)
        return self.similarity_of(self._draw(f"{PREFIXES[0]}[{self._name}]", {self._name: fit}))

    def similarity_of(self, pictures: Sequence[Image.Image]) -> float | None:
        """The same for pictures that were drawn elsewhere."""
        if self._surroundings is None:
            return None
        return max(0.0, self._likeness(self._base_model.image_features(pictures)) - self._common)

    def _draw(self, prompt: str, concepts: dict[str, Concept]) -> list[Image.Image]:
        return draw_pictures(
            self._base_model,
            [prompt] * len(_SEEDS),
            concepts,
            seeds=_SEEDS,
            steps=_STEPS,
            solver=Solver.DPM_SOLVER_PP_2M,
        )

    def _likeness(self, features: Tensor) -> float:
        """Mean over pictures (Q, P) of the cosine to the nearest surroundings."""
        around = features.new_zeros(1, features.shape[1]) if self._surroundings is None else self._surroundings
        cosines = functional.cosine_similarity((features - self._middle)[:, None], around[None], dim=-1)  # (Q, N)
        return float(cosines.amax(dim=1).mean())


def surroundings(picture: Image.Image, subject: Image.Image) -> Image.Image | None:
    """A photo with its subject painted over in the colour around it; None where there is nothing around it.

    Args:
        picture: RGB.
        subject: Grey, white where the subject is, of the same size.
    """
    # A wider mask takes the subject's outline and shadow with it.
    wide = np.asarray(subject.filter(ImageFilter.MaxFilter(5)), dtype=np.float32)[..., None] / 255
    around = 1 - wide
    if float(around.mean()) < 0.05:
        return None
    pixels = np.asarray(picture, dtype=np.float32)
    colour = (pixels * around).sum(axis=(0, 1)) / around.sum()
    return Image.fromarray((pixels * around + colour * wide).round().clip(0, 255).astype(np.uint8))


def outside_share(inside: float, subject_share: float) -> float | None:
    """Share of a word's attention that falls outside of the subject, where 1 is as much as chance puts there.

    Args:
        inside: Share of the attention that falls on the subject.
        subject_share: Share of the picture that the subject covers.

    Returns:
        From 0 on; None where the photos are all subject.
    """
    return None if subject_share > 0.95 else (1 - inside) / (1 - subject_share)
