"""Photos, masks and captions on this machine, and how masks are found beside their photos."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from detex_client.errors import refused

PHOTO_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".heic", ".heif", ".avif", ".tif", ".tiff", ".bmp")
_FORMATS = "PNG, JPEG, WebP, HEIC, AVIF, TIFF or BMP"
MASK_SUFFIX = ".png"


@dataclass(frozen=True)
class TrainingPhoto:
    """One photo of a subject.

    Attributes:
        photo: File with the photo.
        mask: File with its mask, the subject in white on black; None where there is none.
        caption: What the photo shows, in words; may be empty.
    """

    photo: Path
    mask: Path | None = None
    caption: str = ""


def find_training_photos(
    sources: Iterable[str | Path],
    *,
    masks: Sequence[str | Path | None] | None = None,
    captions: Sequence[str] | None = None,
) -> tuple[TrainingPhoto, ...]:
    """The photos of a training set, in the order that their indices in prompts follow.

    Files stay in the order given; a folder stands for the photos directly in it in natural order,
    `photo_2` before `photo_10`. Without `masks`, the mask of `mug.jpg` is the first of `mug.mask.png`, `mug_mask.png`,
    `mask_mug.png` beside it, and that of `photo_3.jpg` may also be called `mask_3.png`. A file that is the mask of
    another one is never taken for a photo itself, so that `photos/*.png` does what is meant.

    Args:
        sources: Files and folders.
        masks: Masks of all photos in their order, None for a photo without one; nothing is looked for then.
        captions: Captions of all photos in their order.

    Raises:
        DetexClientError: INVALID_ARGUMENT for a missing file, a folder without photos, or another number of masks or
            captions than photos.
    """
    files = [file for source in sources for file in _files(Path(source))]
    partners = {file: _mask_beside(file) for file in files}
    found = {mask for mask in partners.values() if mask is not None}
    photos = list(dict.fromkeys(file for file in files if file not in found))
    if not photos:
        raise refused("photos", "none", f"at least one {_FORMATS} file")
    if masks is None:
        chosen: list[Path | None] = [partners[photo] for photo in photos]
    else:
        _check_count("masks", len(masks), len(photos))
        chosen = [None if mask is None else _file("masks", Path(mask)) for mask in masks]
    if captions is not None:
        _check_count("captions", len(captions), len(photos))
    return tuple(
        TrainingPhoto(photo, mask, caption)
        for photo, mask, caption in zip(photos, chosen, captions or [""] * len(photos), strict=True)
    )


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        return [_file("photos", source)]
    photos = [path for path in source.iterdir() if path.suffix.lower() in PHOTO_SUFFIXES and path.name[0] != "."]
    if not photos:
        raise refused("photos", f"the folder {source}", f"a folder with {_FORMATS} files directly in it")
    return sorted(photos, key=_natural_order)


def left_out(sources: Iterable[str | Path]) -> tuple[Path, ...]:
    """Files of the folders that `find_training_photos` does not take, in natural order; none that is hidden."""
    folders = [path for source in sources if (path := Path(source)).is_dir()]
    files = [path for folder in folders for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    return tuple(sorted((path for path in files if path.suffix.lower() not in PHOTO_SUFFIXES), key=_natural_order))


def _file(field: str, path: Path) -> Path:
    if not path.is_file():
        raise refused(field, f"{path}, which is not a file", "existing files")
    return path


def _natural_order(path: Path) -> list[tuple[int, str]]:
    return [(int(piece), "") if piece.isdecimal() else (0, piece) for piece in re.split(r"(\d+)", path.name.lower())]


def _mask_beside(photo: Path) -> Path | None:
    names = [f"{photo.stem}.mask", f"{photo.stem}_mask", f"mask_{photo.stem}"]
    if photo.stem.startswith("photo_"):
        names.append(f"mask_{photo.stem.removeprefix('photo_')}")
    candidates = (photo.with_name(name + MASK_SUFFIX) for name in names)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _check_count(field: str, given: int, photos: int) -> None:
    if given != photos:
        raise refused(field, f"{given} for {photos} photos", "one per photo")
