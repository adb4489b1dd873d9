"""What may spoil the result of a training set, in plain words."""

from collections.abc import Sequence
from itertools import combinations

from detex_trainer.domain.photo_place import photo_name
from detex_trainer.domain.training_set_record import MaskSource, PhotoRecord
from detex_trainer.intake.look import PhotoLook, likeness, shared_surroundings

_SMALLEST_SHARE = 0.02
_LARGEST_SHARE = 0.95
_LONGEST_ASPECT = 2.0
_LARGEST_BLUR = 0.8
_LIKE = 0.93
_SHARED = 0.75
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def training_set_warnings(
    photos: Sequence[PhotoRecord], base_model_side: int | None, looks: Sequence[PhotoLook] = ()
) -> tuple[str, ...]:
    """Sentences on what may spoil the result; none where nothing is amiss.

    Args:
        photos: The photos in the order of their indices.
        base_model_side: Pixels of the shorter side that the base model was trained at; None where it is not known.
        looks: What the photos look like, in the same order; empty where nobody looked.
    """
    warnings = []
    if len(photos) == 1:
        warnings.append(
            "There is only one photo, so the subject cannot be separated from its pose and background; 3 to 5 photos "
            "in different places work best."
        )
    for photo in photos:
        warnings.extend(_photo_warnings(photo, base_model_side))
    for first, second in combinations(photos, 2):
        if first.sha256 == second.sha256:
            warnings.append(f"Photos {_name(first)} and {_name(second)} are the same file; use a different photo.")
    if len(looks) == len(photos):
        warnings.extend(_look_warnings(photos, looks))
    found = [photo for photo in photos if photo.mask_source is MaskSource.SEGMENTER and photo.mask_sha256 is not None]
    if found:
        warnings.append(
            f"{_listed(found)} had no mask: the segmenter has found a subject, which may be the wrong one. Check the "
            "masks, and replace wrong ones."
        )
    lost = [photo for photo in photos if photo.mask_source is MaskSource.SEGMENTER and photo.mask_sha256 is None]
    if lost:
        have = "has" if len(lost) == 1 else "have"
        warnings.append(
            f"{_listed(lost)} {have} no mask, and the segmenter has found no subject; methods that learn from masks "
            "will fail. Send a mask, or a photo with a transparent background."
        )
    return tuple(warnings)


def _look_warnings(photos: Sequence[PhotoRecord], looks: Sequence[PhotoLook]) -> list[str]:
    warnings = [
        f"Photo {_name(photo)} is blurred; generated pictures will be blurred too. Use a sharper one."
        for photo, look in zip(photos, looks, strict=True)
        if look.blur > _LARGEST_BLUR
    ]
    for (first, first_look), (second, second_look) in combinations(zip(photos, looks, strict=True), 2):
        if first.sha256 != second.sha256 and likeness(first_look, second_look) >= _LIKE:
            warnings.append(
                f"Photos {_name(first)} and {_name(second)} are nearly identical; one from another side would help "
                "more."
            )
    # What was cut out stands on white by our own doing.
    natural = [look for photo, look in zip(photos, looks, strict=True) if photo.mask_source is not MaskSource.ALPHA]
    if len(natural) == len(photos) > 1 and all(
        shared_surroundings(first, second) >= _SHARED for first, second in combinations(natural, 2)
    ):
        warnings.append(f"These {_number(len(photos))} photos share one background; add another for a cleaner result.")
    return warnings


def _listed(photos: Sequence[PhotoRecord]) -> str:
    which = "Photo" if len(photos) == 1 else "Photos"
    return f"{which} {', '.join(map(_name, photos))}"


def _name(photo: PhotoRecord) -> str:
    """Its index, with the file name that its caller knows it by."""
    return photo_name(photo.photo_index, photo.file_name)


def _number(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else str(count)


def _photo_warnings(photo: PhotoRecord, base_model_side: int | None) -> list[str]:
    name = f"Photo {_name(photo)}"
    size = f"{photo.width} x {photo.height} pixels"
    warnings = []
    shorter, longer = sorted((photo.width, photo.height))
    if base_model_side is not None and shorter < base_model_side:
        warnings.append(
            f"{name} has {size}, fewer than the {base_model_side} that the base model was trained at; it will be "
            "enlarged and look blurred."
        )
    if longer > _LONGEST_ASPECT * shorter:
        warnings.append(f"{name} is long and narrow ({size}); only a square part of it is used.")
    if photo.mask_sha256 is not None and photo.mask_share < _SMALLEST_SHARE:
        warnings.append(
            f"The mask of photo {_name(photo)} covers {photo.mask_share:.1%} of it; crop the photo closer to the "
            "subject."
        )
    if photo.mask_sha256 is not None and photo.mask_share > _LARGEST_SHARE:
        warnings.append(
            f"The mask of photo {_name(photo)} covers {photo.mask_share:.0%} of it; with so little background the "
            "subject is hard to separate from it."
        )
    return warnings
