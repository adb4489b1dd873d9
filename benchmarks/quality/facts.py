"""What the judge and the base model's encoders say of each picture of a subject.

Legend: n pictures, N training photos, D width of the judge's identity embedding, P width of image features.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from benchmarks.quality.judge import Judge
from benchmarks.quality.picture_plan import PictureRequest
from benchmarks.quality.subjects import BenchmarkSubject, foreground, picture
from benchmarks.showroom.renderer import Photo
from detex_core.prompt import parse_prompt
from detex_diffusion.base_model import BaseModel
from detex_diffusion.latents import to_pixels
from detex_diffusion.text import encode, tokenize

_BATCH: Final = 64
_PROJECTION: Final = Path("text_projection") / "projection.safetensors"


@dataclass(frozen=True)
class PictureFacts:
    """One picture, judged.

    Attributes:
        request: What was asked.
        class_word: What the judge sees.
        pose: What the judge sees.
        scene: What the judge sees.
        identity_similarity: Mean cosine between the picture's identity embedding and those of the held-out photos.
        retrieved: Whether the subject is nearer than all others of any class.
        retrieved_in_class: Whether the subject is nearer than all others of its class.
        nearest_photo_rmse: Root mean squared difference to the nearest training photo, values from 0 to 1.
        image_similarity: Mean cosine of the base model's image features with those of the training photos.
        foreground_similarity: The same with the training photos' subjects on grey.
        text_similarity: Cosine of the base model's image features with its text features of the plain prompt; None
            where the base model has no text projection.
        features: (P,) of length 1, the base model's image features.
    """

    request: PictureRequest
    class_word: str
    pose: str
    scene: str
    identity_similarity: float
    retrieved: bool
    retrieved_in_class: bool
    nearest_photo_rmse: float
    image_similarity: float
    foreground_similarity: float
    text_similarity: float | None
    features: Tensor = field(compare=False, repr=False)


class SubjectObserver:
    """Looks at pictures of one subject."""

    def __init__(self, base_model: BaseModel, judge: Judge, subject: BenchmarkSubject, others: Sequence[Photo]) -> None:
        """Prepare what pictures are compared with.

        Args:
            base_model: Whose encoders.
            judge: Who tells factors and identity.
            subject: Whose pictures.
            others: One photo each of subjects of any class that it must be told from.
        """
        self._base_model = base_model
        self._judge = judge
        self._held_out = _identity(judge, subject.held_out)
        self._others = _identity(judge, others)
        self._same_class = _identity(judge, subject.same_class)
        photos = [picture(photo) for photo in subject.photos]
        self._photo_pixels = to_pixels(photos)
        self._photo_features = image_features(base_model, photos)
        self._foreground_features = image_features(base_model, [foreground(photo) for photo in subject.photos])

    def observe(self, requests: Sequence[PictureRequest], pictures: Sequence[Image.Image]) -> list[PictureFacts]:
        """Facts of n pictures."""
        judged = self._judge.judge(pictures)
        features = image_features(self._base_model, pictures)
        texts = text_features(self._base_model, [request.plain_prompt for request in requests])
        similarity = judged.identity @ self._held_out.T  # (n, held-out photos)
        own = similarity.mean(dim=1)
        pixels = to_pixels(pictures)
        squares = ((pixels[:, None] - self._photo_pixels[None]) / 2).square().mean(dim=(2, 3, 4))  # (n, N)
        rows = []
        for i, request in enumerate(requests):
            rows.append(
                PictureFacts(
                    request=request,
                    class_word=judged.words["class"][i],
                    pose=judged.words["pose"][i],
                    scene=judged.words["scene"][i],
                    identity_similarity=float(own[i]),
                    retrieved=_is_nearest(judged.identity[i], own[i], self._others),
                    retrieved_in_class=_is_nearest(judged.identity[i], own[i], self._same_class),
                    nearest_photo_rmse=float(squares[i].min().sqrt()),
                    image_similarity=float((features[i] @ self._photo_features.T).mean()),
                    foreground_similarity=float((features[i] @ self._foreground_features.T).mean()),
                    text_similarity=None if texts is None else float(features[i] @ texts[i]),
                    features=features[i],
                )
            )
        return rows

    def observe_photos(self, subject: BenchmarkSubject) -> tuple[float, float, float]:
        """What the training photos themselves reach: identity similarity, retrieval, retrieval within the class."""
        identity = _identity(self._judge, subject.photos)
        own = (identity @ self._held_out.T).mean(dim=1)
        shares = [
            float(np.mean([_is_nearest(row, value, gallery) for row, value in zip(identity, own, strict=True)]))
            for gallery in (self._others, self._same_class)
        ]
        return float(own.mean()), shares[0], shares[1]


def image_features(base_model: BaseModel, pictures: Sequence[Image.Image]) -> Tensor:
    """Features (n, P) of length 1 by the base model's image encoder."""
    parts = [base_model.image_features(pictures[at : at + _BATCH]).cpu() for at in range(0, len(pictures), _BATCH)]
    return functional.normalize(torch.cat(parts), dim=1)


@torch.no_grad()
def text_features(base_model: BaseModel, prompts: Sequence[str]) -> Tensor | None:
    """Features (n, P) of length 1 of plain prompts by the base model's text encoder; None without a text projection."""
    path = base_model.folder / _PROJECTION
    if not path.is_file():
        return None
    projection = load_file(path)["text_projection.weight"].float()
    rows = []
    for text in prompts:
        tokenized = tokenize(parse_prompt(text), {}, base_model.tokenizer)
        # Pooled as CLIP does: the state of the end token, which is the last that is not padding.
        hidden = encode(base_model, [tokenized])[0, tokenized.length - 1]
        rows.append(projection @ hidden.float().cpu())
    return functional.normalize(torch.stack(rows), dim=1)


def _identity(judge: Judge, photos: Sequence[Photo]) -> Tensor:
    return judge.judge([picture(photo) for photo in photos]).identity


def _is_nearest(identity: Tensor, own: Tensor, others: Tensor) -> bool:
    """Whether an embedding (D,) is nearer to its own subject than to each of the others (m, D)."""
    return bool((others @ identity < own).all())
