"""Photos as cameras, phones and scanners save them, as the trainer takes them: still PNG, JPEG or WebP of bounded size.

What the trainer takes is sent as it is, a JPEG without what cameras note beside the picture, such as the place. HEIC,
AVIF, TIFF and BMP files, and pictures of more pixels or bytes than the trainer takes, are converted on this machine:
upright by their EXIF orientation, in sRGB, without metadata, and reduced where they are too large. The conversion of a
file always gives the same bytes, so that an upload that broke off continues.
"""

import io
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from detex_client.errors import DetexClientError, refused
from detex_core.errors import DetexError
from detex_core.image_structure import check_structure
from detex_core.images import MAX_IMAGE_PIXELS, MAX_IMAGE_SIDE
from detex_core.picture_notes import split_jpeg

MAX_SENT_BYTES = 32 * 1024**2
"""The trainer's own limit on a file, as it comes."""
REDUCED_PIXELS = 16_000_000
"""Of a picture that was too large: four times what any base model reads."""
MAX_READ_PIXELS = 400_000_000

_MAGIC = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
    b"GIF8": "GIF",
}
_ORIENTATION_TAG = 0x0112
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")
_TAKEN = ("PNG", "JPEG", "WebP")
_READERS = {"HEIC": "HEIF"}
_ACCEPTED = "a still PNG, JPEG, WebP, HEIC, AVIF, TIFF or BMP picture"


@dataclass(frozen=True)
class SentFile:
    """A file as it is sent.

    Attributes:
        data: Its bytes.
        file_bytes: Size of the file on this machine.
        reduced_from: Width and height of the upright picture before it was reduced; None where it was not.
        size: Width and height of what is sent where it was converted; None where it is sent as it is.
        note: What was done with it, in words that follow the file's name; empty for nothing.
    """

    data: bytes
    file_bytes: int
    reduced_from: tuple[int, int] | None = None
    size: tuple[int, int] | None = None
    note: str = ""


def picture_format(data: bytes) -> str:
    """The format of a picture by its first bytes; empty for one that this module does not know."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp":
        brands = data[8 : min(len(data), 8 + 64)]
        if any(brand in brands for brand in _AVIF_BRANDS):
            return "AVIF"
        return "HEIC" if any(brand in brands for brand in _HEIC_BRANDS) else ""
    return next((name for magic, name in _MAGIC.items() if data.startswith(magic)), "")


def sent_photo(path: Path, field: str) -> SentFile:
    """A photo as it is sent.

    Args:
        path: The file.
        field: Name of the field in errors, for example `photos[2]`.

    Raises:
        DetexClientError: INVALID_ARGUMENT for a file that cannot be read, an animation, or a damaged picture of a
            format that is converted here; the message names the file.
    """
    data = _read(path, field)
    form = picture_format(data)
    if not form or (form in _TAKEN and len(data) <= MAX_SENT_BYTES and not _is_too_large(data, form)):
        # What is not known here is the trainer's to judge.
        return SentFile(_without_notes(data) if form == "JPEG" else data, len(data))
    picture = _opened(data, form, path, field)
    pixels = picture.width * picture.height
    reduced_from = None
    if pixels > MAX_IMAGE_PIXELS or max(picture.size) > MAX_IMAGE_SIDE:
        reduced_from = picture.size
        share = min((REDUCED_PIXELS / pixels) ** 0.5, MAX_IMAGE_SIDE / max(picture.size))
        picture = picture.resize(
            (max(1, round(picture.width * share)), max(1, round(picture.height * share))), Image.Resampling.LANCZOS
        )
    buffer = io.BytesIO()
    if picture.mode == "RGBA":
        picture.save(buffer, "PNG", compress_level=6)
    else:
        picture.save(buffer, "JPEG", quality=95, subsampling=0)
    words = [f"converted from {form}"] if form not in _TAKEN else ["re-encoded, as it was too large"]
    if reduced_from is not None:
        words.append(f"reduced from {reduced_from[0]} x {reduced_from[1]} to {picture.width} x {picture.height}")
    return SentFile(buffer.getvalue(), len(data), reduced_from, picture.size, ", ".join(words))


def sent_mask(path: Path, field: str, photo: SentFile) -> SentFile:
    """The mask of a photo as it is sent: reduced as the photo was, and otherwise as it is; raises as `sent_photo`."""
    data = _read(path, field)
    if photo.reduced_from is None or photo.size is None:
        return SentFile(data, len(data))
    form = picture_format(data)
    if not form:
        return SentFile(data, len(data))
    mask = _opened(data, form, path, field)
    if mask.size != photo.reduced_from:
        return SentFile(data, len(data))  # of another size: the trainer says so
    alone = mask.getchannel("A") if mask.mode == "RGBA" else mask.convert("L")
    buffer = io.BytesIO()
    alone.resize(photo.size, Image.Resampling.BOX).save(buffer, "PNG")
    return SentFile(buffer.getvalue(), len(data), mask.size, photo.size, "reduced with its photo")


def _read(path: Path, field: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise refused(field, f"{path} ({error.strerror})", "a readable file") from None


def _without_notes(jpeg: bytes) -> bytes:
    """A JPEG without what cameras note beside the picture, the place among it; its orientation stays."""
    try:
        check_structure(jpeg, field="photo")
        notes = split_jpeg(jpeg)
    except (DetexError, ValueError):
        return jpeg  # damaged: the trainer says so
    if len(notes.picture) == len(jpeg):
        return jpeg
    if not 2 <= notes.orientation <= 8:
        return notes.picture
    # TIFF 6.0: one directory of one entry, the orientation as one SHORT, and no further directory.
    tiff = struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, _ORIENTATION_TAG, 3, 1, notes.orientation, 0, 0)
    content = b"Exif\0\0" + tiff
    return notes.picture[:2] + struct.pack(">BBH", 0xFF, 0xE1, len(content) + 2) + content + notes.picture[2:]


def _is_too_large(data: bytes, form: str) -> bool:
    try:
        with _reader(data, form) as image:
            return image.width * image.height > MAX_IMAGE_PIXELS or max(image.size) > MAX_IMAGE_SIDE
    except (OSError, ValueError, SyntaxError):
        return False  # damaged: the trainer says so


def _reader(data: bytes, form: str) -> Image.Image:
    if form == "HEIC":
        from pillow_heif import register_heif_opener  # it loads a library of some MB

        register_heif_opener()
    with warnings.catch_warnings():
        # The size is looked at before a pixel is decoded.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(io.BytesIO(data), formats=[_READERS.get(form, form.upper())])
        except Image.DecompressionBombError as error:
            raise OSError(str(error)) from error


def _opened(data: bytes, form: str, path: Path, field: str) -> Image.Image:
    """The picture upright, in sRGB, as RGB or RGBA."""
    try:
        image = _reader(data, form)
        frames = int(getattr(image, "n_frames", 1))
        if frames > 1 and image.format != "MPO":
            raise refused(field, f"{path} with {frames} frames or pages", _ACCEPTED)
        if image.width * image.height > MAX_READ_PIXELS:
            size = f"{image.width} x {image.height} pixels"
            raise refused(field, f"{path} of {size}", f"at most {MAX_READ_PIXELS // 1_000_000} megapixels")
        return _in_srgb(ImageOps.exif_transpose(image))
    except DetexClientError:
        raise
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError) as error:
        raise refused(field, f"{path}, which is damaged or truncated ({type(error).__name__})", _ACCEPTED) from None


def _in_srgb(image: Image.Image) -> Image.Image:
    has_alpha = "A" in image.getbands() or "transparency" in image.info
    alpha = image.convert("RGBA").getchannel("A") if has_alpha else None
    profile = image.info.get("icc_profile")
    colours = image
    if image.mode.startswith(("I", "F")):
        # 16 bits of a scanner, or numbers from 0 to 1.
        scale = 255.0 if image.mode == "F" else 255 / 65_535
        colours = image.convert("F").point(lambda value: value * scale + 0.5).convert("L")
    if isinstance(profile, bytes) and colours.mode in ("RGB", "CMYK", "L"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(colours, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            colours = converted if converted is not None else colours
        except (ImageCms.PyCMSError, OSError):
            pass  # a profile that does not fit its picture
    colours = colours.convert("RGB")
    if alpha is not None and alpha.point(lambda value: 255 - value).getbbox() is not None:  # not opaque all over
        colours.putalpha(alpha)
    return colours
