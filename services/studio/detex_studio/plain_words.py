"""Which of the page's own sentences says what a sentence of the trainer says.

The trainer speaks English. What it says of photos and concepts is recognised here by its wording, so that the page can
say it in its reader's language and without the trade's words. What is not recognised is shown as it came.
"""

import re
from dataclasses import dataclass

_PHOTOS = r"(?P<photos>\d.*?)"
_INDICES = re.compile(r"(?:^|, | and )(\d+)(?= \(|, | and |$)")

_WARNINGS = {
    "one_photo": r"There is one photo: ",
    "same_file": rf"Photos {_PHOTOS} are the same file",
    "masks_found": rf"Photos? {_PHOTOS} had no mask: the segmenter has found",
    "nothing_found": rf"Photos? {_PHOTOS} ha(?:s|ve) no mask, and the segmenter has found no subject",
    "blurred": rf"Photo {_PHOTOS} is blurred",
    "nearly_same": rf"Photos {_PHOTOS} are nearly the same picture",
    "one_background": r"These \w+ photos share one background",
    "small": rf"Photo {_PHOTOS} has \d+ x \d+ pixels, fewer than",
    "narrow": rf"Photo {_PHOTOS} is long and narrow",
    "mask_small": rf"The mask of photo {_PHOTOS} covers .*; crop the photo closer",
    "mask_large": rf"The mask of photo {_PHOTOS} covers .*; with so little background",
}

_FINDINGS = {
    "few_photos": r"There (?:is only one photo|are only \d+ photos)",
    "one_background": r"All photos show the subject in the same surroundings",
    "far_away": r"The subject covers .* of the photos on average",
    "wrong_kind": r"The base model does not see a ",
    "learned_little": r"The subject word says hardly more of the subject",
    "looks_around": r"The subject word looks at the subject hardly more",
    "brings_background": r"Pictures of the concept show the surroundings of its photos",
    "disobedient": r"The weights that were trained moved by",
}


@dataclass(frozen=True)
class Said:
    """A sentence of the trainer.

    Attributes:
        key: Which of the page's sentences says it; empty where none does.
        photos: Indices of the photos that it names, from 0.
        text: As the trainer said it.
    """

    key: str
    photos: tuple[int, ...]
    text: str


def warning(text: str) -> Said:
    """A warning about the photos of a training set."""
    return _recognised(text, _WARNINGS)


def finding(text: str) -> Said:
    """A finding about a concept."""
    return _recognised(text, _FINDINGS)


def _recognised(text: str, patterns: dict[str, str]) -> Said:
    for key, pattern in patterns.items():
        match = re.match(pattern, text)
        if match:
            named = match.groupdict().get("photos") or ""
            return Said(key, tuple(int(number) for number in _INDICES.findall(named)), text)
    return Said("", (), text)
