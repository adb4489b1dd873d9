"""An optional look for what must not be in a catalog, by a detector that is installed beside."""

import io
from collections.abc import Callable
from enum import StrEnum
from typing import Any

UnsafeCheck = Callable[[bytes], dict[str, float]]
"""From a PNG to what was found in it, by name, with its probability from 0 to 1."""

UNSAFE_CLASSES = frozenset(
    {
        "ANUS_EXPOSED",
        "BUTTOCKS_EXPOSED",
        "FEMALE_BREAST_EXPOSED",
        "FEMALE_GENITALIA_EXPOSED",
        "MALE_GENITALIA_EXPOSED",
    }
)


class UnsafeDetector(StrEnum):
    """What looks for unsafe pictures."""

    OFF = "off"
    NUDENET = "nudenet"


class DetectorMissingError(Exception):
    """The detector that was asked for is not installed."""


def open_unsafe_check(detector: UnsafeDetector) -> UnsafeCheck | None:
    """The check; None where it is off.

    Raises:
        DetectorMissingError: It is not installed.
    """
    if detector is UnsafeDetector.OFF:
        return None
    try:
        from nudenet import NudeDetector
    except ImportError:
        raise DetectorMissingError(
            "--unsafe-check nudenet: must be installed, for example by  pip install 'detex[catalog-unsafe]'"
        ) from None
    found: Any = NudeDetector()
    return lambda png: _unsafe(found, png)


def _unsafe(detector: Any, png: bytes) -> dict[str, float]:
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(png)) as image:
        blue_green_red = np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])
    found: dict[str, float] = {}
    for each in detector.detect(blue_green_red):
        if each["class"] in UNSAFE_CLASSES:
            found[each["class"]] = max(found.get(each["class"], 0.0), float(each["score"]))
    return found
