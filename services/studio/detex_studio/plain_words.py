"""Which of the page's own sentences says what a sentence of the trainer says.

The trainer speaks English. What it says of photos and concepts is recognised here by its wording, so that the page can
say it in its reader's language and without the trade's words. What is not recognised is shown as it came.
"""

import re
from dataclasses import dataclass

_PHOTOS = r"(?P<photos>\d.*?)"

_WARNINGS = {
    "one_photo": r"There is only one photo",
    "same_file": rf"Photos {_PHOTOS} are the same file",
    "masks_found": rf"Photos? {_PHOTOS} had no mask: the segmenter has found",
    "nothing_found": rf"Photos? {_PHOTOS} ha(?:s|ve) no mask, and the segmenter has found no subject",
    "blurred": rf"Photo {_PHOTOS} is blurred",
    "nearly_same": rf"Photos {_PHOTOS} are nearly identical",
    "one_background": r"These \w+ photos share one background",
    "small": rf"Photo {_PHOTOS} has \d+ x \d+ pixels, fewer than",
    "narrow": rf"Photo {_PHOTOS} is long and narrow",
    "mask_small": rf"The mask of photo {_PHOTOS} covers [\d.]+% of it; crop the photo",
    "mask_large": rf"The mask of photo {_PHOTOS} covers [\d.]+% of it; with so little background",
}

_FINDINGS = {
    "few_photos": r"There (?:is only one photo|are only \d+ photos)",
    "one_background": r"All photos show the subject in the same surroundings",
    "far_away": r"The subject covers [\d.]+% of the photos",
    "wrong_kind": r"The base model does not recognize a ",
    "learned_little": r"The subject word describes the subject hardly better",
    "looks_around": r"The subject word attends to the subject hardly more",
    "brings_background": r"Pictures of the concept show the surroundings of its photos",
    "disobedient": r"The trained weights moved by",
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
            return Said(key, tuple(int(number) for number in re.findall(r"\d+", _without_names(named))), text)
    return Said("", (), text)


def _without_names(photos: str) -> str:
    """`0 (cup.jpg) and 1 (cup (2).jpg)` without the file names, which stand in parentheses and may have some."""
    kept, depth = "", 0
    for letter in photos:
        depth += (letter == "(") - (letter == ")" and depth > 0)
        if depth == 0:
            kept += letter
    return kept
