"""How like a picture is to photos of its product, by statistics of colour and structure.

What is measured: whether the picture holds the product's colours in the amounts that the photos show (histogram
intersection, Swain and Ballard, 1991), and whether what has these colours is patterned as in the photos. Both are given
in units of what the photos have among themselves, so 1 means as like as one photo is to the others. It finds a picture
without the product, or with one of other colours; it does not read shapes or letters, and does not take the place of
somebody who looks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detex_catalog.checks.statistics import Array, PictureStatistics

_SMALLEST_SHARE = 0.5
"""Of the photos' area, a product may take this much in a picture before its colours count as missing."""
_WORST_BASELINE = 0.2


@dataclass(frozen=True)
class Likeness:
    """Of a picture and the photos of its product; 1 is as like as one photo is to the others.

    Attributes:
        colour: Whether the product's colours are there, 0 to 1.
        structure: Whether what has them is patterned alike, 0 to 1.
    """

    colour: float
    structure: float

    @property
    def total(self) -> float:
        """Both in one figure, 0 to 1; the colour counts twice."""
        return float(np.cbrt(self.colour**2 * self.structure))


class ProductAppearance:
    """What the photos of a product have in common.

    Args:
        photos: At least one; their weights say where the product is.
    """

    def __init__(self, photos: Sequence[PictureStatistics]) -> None:
        if not photos:
            raise ValueError("photos: must be at least one, got none")
        self._photos = photos
        self._model = _Model(photos)
        held_out = [
            _Model([*photos[:index], *photos[index + 1 :]]).compare(photo) for index, photo in enumerate(photos)
        ]
        pairs = held_out if len(photos) > 1 else [self._model.compare(photos[0])]
        self._baseline = [max(float(np.mean([pair[part] for pair in pairs])), _WORST_BASELINE) for part in (0, 1)]

    def likeness(self, picture: PictureStatistics) -> Likeness:
        """How like a picture is, of which nobody knows where the product is."""
        colour, structure = self._model.compare(picture)
        return Likeness(min(1.0, colour / self._baseline[0]), min(1.0, structure / self._baseline[1]))


class _Model:
    def __init__(self, photos: Sequence[PictureStatistics]) -> None:
        if not photos:
            return
        self._colours: Array = np.mean([photo.colours() for photo in photos], axis=0)
        self._structure: Array = np.mean([photo.structure() for photo in photos], axis=0)
        self._share = float(np.mean([photo.share for photo in photos])) * _SMALLEST_SHARE

    def compare(self, picture: PictureStatistics) -> tuple[float, float]:
        """Likeness in colour and structure, each from 0 to 1, with the whole picture."""
        everywhere = np.ones_like(picture.weights)
        colours = picture.colours(everywhere)
        colour = float(np.minimum(self._colours, colours / self._share).sum())
        # Histogram backprojection: how far each pixel's colour is the product's rather than the surroundings'.
        belongs = np.clip(self._colours * self._share / np.maximum(colours, 1e-6), 0, 1)
        weights = belongs[picture.bins].astype(np.float32)
        structure = float(np.minimum(self._structure, picture.structure(weights)).sum(axis=1).mean())
        return colour, structure
