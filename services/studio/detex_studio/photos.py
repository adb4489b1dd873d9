"""Dropped photos on their way to the trainer, small copies of them, and painted masks."""

import io
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageOps

from detex_client import TrainerClient, TrainingPhoto, TrainingSet
from detex_client.photo_file import sent_photo
from detex_studio.errors import StudioError, refused

COPY_SIDE = 720
"""Longest side in pixels of the copies that the page shows and masks are painted on."""
_LARGEST_MASK_PIXELS = 4_000_000


@dataclass(frozen=True)
class DroppedPhoto:
    """A photo as the browser sent it.

    Attributes:
        name: Its file name, for messages alone.
        data: Its bytes.
    """

    name: str
    data: bytes


@dataclass(frozen=True)
class UploadedPhotos:
    """What became of an upload.

    Attributes:
        training_set: As the trainer keeps it.
        copies: Small copies in the order of the photos, WebP.
        notes: What was converted on the way, a sentence each.
    """

    training_set: TrainingSet
    copies: list[bytes]
    notes: list[str]


def upload(trainer: TrainerClient, photos: list[DroppedPhoto], class_word: str) -> UploadedPhotos:
    """Send photos to the trainer, which finds the product in each; it deletes them when training has ended."""
    notes: list[str] = []
    with TemporaryDirectory(prefix="detex-studio-") as folder:
        files = []
        for index, photo in enumerate(photos):
            # A folder for each: names are the sender's, may come twice, and say nothing about where a file goes.
            place = Path(folder) / str(index)
            place.mkdir()
            file = place / (file_name(photo.name) or f"photo-{index + 1}")
            file.write_bytes(photo.data)
            files.append(file)
        copies = [_copy(file) for file in files]
        sent = [TrainingPhoto(file) for file in files]
        training_set = trainer.upload(sent, class_word=class_word, on_note=notes.append)
    return UploadedPhotos(training_set, copies, notes)


def file_name(sent: str) -> str:
    """The last part of a name as a browser sends it, printable and short; empty where nothing is left."""
    last = sent.replace("\\", "/").rpartition("/")[2]
    kept = "".join(letter for letter in last if letter.isprintable() and letter not in '<>:"|?*')[-80:]
    return kept.lstrip(".")


def _copy(file: Path) -> bytes:
    data = sent_photo(file, file.name).data
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("RGB", (COPY_SIDE, COPY_SIDE))
            upright = ImageOps.exif_transpose(image)
            upright.thumbnail((COPY_SIDE, COPY_SIDE), Image.Resampling.LANCZOS)
            flat = Image.new("RGB", upright.size, "white")
            shown = upright.convert("RGBA")
            flat.paste(shown, mask=shown.getchannel("A"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise StudioError(400, "NOT_A_PHOTO", f"{file.name}: must be a photo, got something else") from None
    buffer = io.BytesIO()
    flat.save(buffer, "WEBP", quality=82)
    return buffer.getvalue()


def shown_mask(mask_png: bytes, size: tuple[int, int]) -> bytes:
    """A mask in the size of the photo's small copy, as PNG; black all over where no product was found."""
    mask = Image.new("L", size)
    if mask_png:
        with Image.open(io.BytesIO(mask_png)) as image:
            mask = image.convert("L").resize(size, Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    return buffer.getvalue()


def painted_mask(data: bytes, size: tuple[int, int]) -> bytes:
    """A mask that was painted on a photo's small copy, in the size of the photo, as PNG.

    Raises:
        StudioError: It is no PNG of a sensible size, or black all over.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.width * image.height > _LARGEST_MASK_PIXELS:
                raise refused("mask", f"at most {_LARGEST_MASK_PIXELS:,} pixels", f"{image.width} x {image.height}")
            mask = image.convert("L").resize(size, Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise refused("mask", "a PNG", "something else") from None
    if mask.getbbox() is None:
        raise StudioError(400, "EMPTY_MASK", "mask: must mark the product, got none of the photo")
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    return buffer.getvalue()
