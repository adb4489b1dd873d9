"""Every check of one picture, and what speaks against it."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from detex_catalog.checks.likeness import ProductAppearance
from detex_catalog.checks.near_duplicates import AcceptedHashes, perceptual_hash
from detex_catalog.checks.statistics import statistics_of
from detex_catalog.checks.unsafe import UnsafeCheck


class Thresholds(BaseModel):
    """What a picture must reach; rows may name their own likeness.

    Attributes:
        min_likeness: Least likeness to the photos of the product, 0 to 1; 0 switches it off.
        min_contrast: Least standard deviation of the lightness, 0 to 0.5 of its range; below it a picture is blank.
        min_duplicate_distance: Least distance in bits of 64 to another accepted picture of the product; 0 switches
            it off.
        max_unsafe: Largest probability of an unsafe part, where a detector looks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_likeness: float = Field(default=0.7, ge=0, le=1)
    min_contrast: float = Field(default=0.03, ge=0, le=0.5)
    min_duplicate_distance: int = Field(default=4, ge=0, le=64)
    max_unsafe: float = Field(default=0.5, ge=0, le=1)


@dataclass(frozen=True)
class CheckedPicture:
    """What was found of a picture.

    Attributes:
        reasons: What speaks against it, in words; none where it is good.
        measures: What was measured, by name.
        perceptual_hash: In hexadecimal.
    """

    reasons: tuple[str, ...] = ()
    measures: dict[str, float] = field(default_factory=dict)
    perceptual_hash: str = ""


class PictureCheck:
    """Checks pictures one after the other.

    Args:
        thresholds: What they must reach.
        accepted: Hashes of accepted pictures.
        appearance_of: The product of a concept; None where there are no photos to compare with.
        unsafe: Looks for unsafe parts; None does not.
    """

    def __init__(
        self,
        thresholds: Thresholds,
        accepted: AcceptedHashes,
        appearance_of: Callable[[str], ProductAppearance | None],
        unsafe: UnsafeCheck | None = None,
    ) -> None:
        self._thresholds = thresholds
        self._accepted = accepted
        self._appearance_of = appearance_of
        self._unsafe = unsafe

    def check(self, png: bytes, *, concept: str, output: str, min_likeness: float | None) -> CheckedPicture:
        """Check a picture of a concept; `min_likeness` of its row wins over the threshold."""
        limits = self._thresholds
        with Image.open(io.BytesIO(png)) as opened:
            image = opened.convert("RGB")
        reasons: list[str] = []
        contrast = float(np.asarray(image.convert("L"), dtype=np.float32).std() / 255)
        measures = {"contrast": contrast}
        if contrast < limits.min_contrast:
            reasons.append(f"blank: contrast must be at least {limits.min_contrast:g}, got {contrast:.3f}")
        appearance = self._appearance_of(concept)
        if appearance is not None:
            likeness = appearance.likeness(statistics_of(image))
            measures |= {"likeness": likeness.total, "colour": likeness.colour, "structure": likeness.structure}
            least = limits.min_likeness if min_likeness is None else min_likeness
            if likeness.total < least:
                reasons.append(f"likeness: must be at least {least:g}, got {likeness.total:.2f}")
        hexadecimal = perceptual_hash(image)
        nearest = self._accepted.nearest(concept, output, hexadecimal)
        if nearest is not None:
            measures["duplicate_distance"] = float(nearest[1])
            if nearest[1] < limits.min_duplicate_distance:
                reasons.append(
                    f"near-duplicate: must differ from {nearest[0]} in at least {limits.min_duplicate_distance} bits, "
                    f"got {nearest[1]}"
                )
        if self._unsafe is not None:
            found = self._unsafe(png)
            measures["unsafe"] = max(found.values(), default=0.0)
            reasons += [
                f"unsafe: {name} must be at most {limits.max_unsafe:g}, got {probability:.2f}"
                for name, probability in sorted(found.items())
                if probability > limits.max_unsafe
            ]
        rounded = {name: round(value, 4) for name, value in measures.items()}
        return CheckedPicture(tuple(reasons), rounded, hexadecimal)
