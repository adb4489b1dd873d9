"""What may spoil the result of a training set, in plain words."""

from collections.abc import Sequence

from detex_trainer.training_set.record import MaskSource, PhotoRecord

_SMALLEST_SHARE = 0.02
_LARGEST_SHARE = 0.95
_LONGEST_ASPECT = 2.0


def training_set_warnings(photos: Sequence[PhotoRecord], base_model_side: int | None) -> tuple[str, ...]:
    """Sentences on what may spoil the result; none where nothing is amiss.

    Args:
        photos: The photos in the order of their indices.
        base_model_side: Pixels of the shorter side that the base model was trained at; None where it is not known.
    """
    warnings = []
    if len(photos) == 1:
        warnings.append(
            "There is one photo: what belongs to the subject and what to its pose and background cannot be told apart; "
            "3 to 5 photos in different places work best."
        )
    for photo in photos:
        warnings.extend(_photo_warnings(photo, base_model_side))
    for position, photo in enumerate(photos):
        twin = next((other for other in photos[:position] if other.sha256 == photo.sha256), None)
        if twin is not None:
            warnings.append(
                f"Photos {twin.photo_index} and {photo.photo_index} are the same file; a different photo teaches more."
            )
    unmasked = [str(photo.photo_index) for photo in photos if photo.mask_source is MaskSource.SEGMENTER]
    if unmasked:
        which = "Photo" if len(unmasked) == 1 else "Photos"
        have = "has" if len(unmasked) == 1 else "have"
        warnings.append(
            f"{which} {', '.join(unmasked)} {have} no mask: the segmenter will look for the subject, and may take "
            "something else for it. Send a mask, or a photo with a transparent background, to be sure."
        )
    return tuple(warnings)


def _photo_warnings(photo: PhotoRecord, base_model_side: int | None) -> list[str]:
    name = f"Photo {photo.photo_index}"
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
            f"The mask of photo {photo.photo_index} covers {photo.mask_share:.1%} of it; crop the photo closer to the "
            "subject."
        )
    if photo.mask_sha256 is not None and photo.mask_share > _LARGEST_SHARE:
        warnings.append(
            f"The mask of photo {photo.photo_index} covers {photo.mask_share:.0%} of it; with so little background the "
            "subject is hard to tell from it."
        )
    return warnings
