"""Photos and masks as callers send them, turned into plain 8-bit images.

Files are judged by their content, never by their name. What a header claims is checked before anything is decoded, so
that a small file which unpacks to gigabytes costs nothing.
"""

import hashlib
import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageCms, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from PIL.Image import Transpose

from detex_core.errors import InvalidInputError, invalid_input
from detex_core.image_structure import check_structure, png_exif, png_rows_are_complete
from detex_core.jpeg_scans import read_jpeg_scans
from detex_core.picture_notes import orientation, split_jpeg
from detex_core.webp_header import read_webp_header, webp_with_other_bits

MAX_IMAGE_BYTES = 64 * 1024**2
MAX_IMAGE_PIXELS = 50_000_000
MAX_IMAGE_SIDE = 16_384
MIN_IMAGE_SIDE = 32

BYTES_PER_PIXEL = 24
"""Memory that decoding takes at most: what Pillow keeps of a pixel (4 bytes) times the pictures that are there at once
(decoded, in 8 bits, in sRGB, upright), and what readers need beside (8 bytes for WebP, 6 for progressive JPEG)."""

ACCEPTED_FILES = "a still PNG, JPEG or WebP picture"
_ACCEPTED_SIZES = (
    f"{MIN_IMAGE_SIDE} to {MAX_IMAGE_SIDE:,} pixels a side and at most {MAX_IMAGE_PIXELS // 10**6} megapixels in all"
)

# EXIF orientation (TIFF 6.0, tag 274) to what sets the picture upright.
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}

_Reader = Callable[[io.BytesIO], ImageFile.ImageFile]


def decode_photo(data: bytes, *, field: str) -> Image.Image:
    """Decode a photo.

    Accepts PNG, JPEG (of a multi-picture file the first picture) and WebP in any colour mode: 1 to 16 bits, grey,
    palette, RGB, CMYK, with or without alpha. Colours are brought to sRGB where the file carries an ICC profile,
    16 bits are rounded to 8, the EXIF orientation is applied, and no metadata is kept.

    Args:
        data: The file, at most 64 MiB.
        field: Name of the field in errors.

    Returns:
        An RGB image, or RGBA where at least one pixel is not opaque.

    Raises:
        InvalidInputError: The file is empty, too large, truncated or damaged, of another format, animated, fully
            transparent, or its sides or its number of pixels are out of range.
    """
    image = _upright(data, field)
    if "A" not in image.getbands():
        return image
    lowest, highest = _range(image.getchannel("A"))
    if highest == 0:
        raise invalid_input(field, "a fully transparent picture", "a picture with visible pixels")
    return image if lowest < 255 else image.convert("RGB")


def read_size(data: bytes, *, field: str) -> tuple[int, int]:
    """Width and height in pixels of a photo or mask after EXIF rotation, from its header; decodes no pixel.

    Args:
        data: The file, at most 64 MiB.
        field: Name of the field in errors.

    Raises:
        InvalidInputError: As for `decode_photo`, but for damage that only shows when pixels are decoded.
    """
    header = _header(data, field)
    # Orientations from 5 on lie on their side.
    turned = header.orientation in (5, 6, 7, 8)
    return (header.height, header.width) if turned else (header.width, header.height)


def decoding_bytes(data: bytes, *, field: str) -> int:
    """Most memory that `decode_photo` or `decode_mask` takes for a file, its result included; decodes no pixel.

    Raises:
        InvalidInputError: As `read_size`.
    """
    header = _header(data, field)
    # A JPEG is copied twice: without its notes, and with other bits to see that it is whole.
    return 3 * len(data) + header.width * header.height * BYTES_PER_PIXEL


def decode_mask(data: bytes, *, field: str, size: tuple[int, int] | None) -> Image.Image:
    """Decode the mask of a photo: the subject in white on black, greys for soft edges.

    Accepts the same files as `decode_photo`. Colours are taken by their luminance; where the file has an alpha channel,
    transparent pixels are black. A mask that is white all over is accepted: then the subject fills the photo.

    Args:
        data: The file, at most 64 MiB.
        field: Name of the field in errors.
        size: Width and height of its photo in pixels, after EXIF rotation; None for a mask that has no photo.

    Returns:
        A grey image (mode L) of that size.

    Raises:
        InvalidInputError: As for `decode_photo`; or the size differs, or no pixel is nearer to white than to black.
    """
    if size is not None and (given := read_size(data, field=field)) != size:
        raise invalid_input(field, _written(given), f"the size of its photo, {_written(size)}")
    image = _upright(data, field)
    if "A" in image.getbands():
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    mask = image.convert("L")
    if _range(mask)[1] < 128:
        raise invalid_input(field, "an all-black mask", "the subject in white on black")
    return mask


@dataclass(frozen=True)
class _Header:
    """Sides in pixels as they are stored, and the EXIF orientation."""

    width: int
    height: int
    orientation: int


def _header(data: bytes, field: str) -> _Header:
    """What a file's header says, checked; takes no memory for pixels."""
    reader = _checked_reader(data, field)
    if reader is WebPImagePlugin.WebPImageFile:
        return _webp_header(data, field)
    if reader is JpegImagePlugin.JpegImageFile:
        notes = split_jpeg(data)
        image = _read_header(reader, notes.picture, field)
        return _Header(image.width, image.height, notes.orientation)
    image = _read_header(reader, data, field)
    return _Header(image.width, image.height, _png_orientation(image, data))


def _webp_header(data: bytes, field: str) -> _Header:
    try:
        header = read_webp_header(data)
    except ValueError as error:
        raise _damaged(field, error) from error
    _check_size(header.width, header.height, field)
    if header.frames > 1:
        raise invalid_input(field, f"an animation of {header.frames} pictures", ACCEPTED_FILES)
    return _Header(header.width, header.height, orientation(header.exif, header.xmp))


def _png_orientation(image: ImageFile.ImageFile, data: bytes) -> int:
    exif, xmp = png_exif(data), image.info.get("xmp") or b""
    profile = image.info.get("Raw profile type exif")
    if not exif and isinstance(profile, str):
        with suppress(ValueError):
            exif = bytes.fromhex("".join(profile.split("\n")[3:]))
    return orientation(exif, xmp if isinstance(xmp, bytes) else b"")


def _opened(data: bytes, field: str) -> tuple[ImageFile.ImageFile, int]:
    """The file with its header read and checked, its pixels not decoded unless that is how to see that all are there.

    Returns:
        The file and its orientation.
    """
    reader = _checked_reader(data, field)
    if reader is WebPImagePlugin.WebPImageFile:
        header = _webp_header(data, field)
        return _whole(reader, data, webp_with_other_bits(data), field), header.orientation
    if reader is JpegImagePlugin.JpegImageFile:
        notes = split_jpeg(data)
        scans = read_jpeg_scans(notes.picture)
        if not scans.are_complete:
            raise invalid_input(field, "a damaged or truncated file (scans or rows are missing)", ACCEPTED_FILES)
        if scans.is_arithmetic:  # whether such a file is whole cannot be seen, and hardly any program reads it
            raise invalid_input(field, "a JPEG with arithmetic coding", f"{ACCEPTED_FILES} (JPEG with Huffman coding)")
        return _whole(reader, notes.picture, scans.with_other_bits(notes.picture), field), notes.orientation
    image = _read_header(reader, data, field)
    _verify_png(data, field)
    return image, _png_orientation(image, data)


def _checked_reader(data: bytes, field: str) -> _Reader:
    if not data:
        raise invalid_input(field, "an empty file", ACCEPTED_FILES)
    if len(data) > MAX_IMAGE_BYTES:
        raise invalid_input(field, f"{len(data):,} bytes", f"at most {MAX_IMAGE_BYTES:,} bytes")
    reader = _reader(data)
    if reader is None:
        raise invalid_input(field, f"a file that begins with {data[:8]!r}", ACCEPTED_FILES)
    check_structure(data, field=field)
    return reader


def _read_header(reader: _Reader, data: bytes, field: str) -> ImageFile.ImageFile:
    try:
        image = reader(io.BytesIO(data))
    except Exception as error:  # the readers raise whatever a damaged header makes them stumble over
        raise _damaged(field, error) from error
    _check_size(image.width, image.height, field)
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise invalid_input(field, f"an animation of {frames} pictures", ACCEPTED_FILES)
    return image


def _check_size(width: int, height: int, field: str) -> None:
    if min(width, height) < MIN_IMAGE_SIDE or max(width, height) > MAX_IMAGE_SIDE:
        raise invalid_input(field, _written((width, height)), _ACCEPTED_SIZES)
    if width * height > MAX_IMAGE_PIXELS:
        raise invalid_input(field, _written((width, height)), _ACCEPTED_SIZES)


def _whole(reader: _Reader, data: bytes, other: bytes, field: str) -> ImageFile.ImageFile:
    """A file that looks the same with other bits behind its own; of what is missing there readers say nothing.

    Args:
        reader: Of its format.
        data: The file.
        other: The file with bits behind it that readers pass over where nothing is missing; the file itself where they
            would say so.
        field: Name of the field in errors.
    """
    if other == data:
        return _read_header(reader, data, field)
    expected = b""
    # One after the other, so that only one is in memory.
    with suppress(InvalidInputError):  # what it does not need makes a reader stumble only where it needs more
        expected = _digest(_read_header(reader, other, field), field)
    image = _read_header(reader, data, field)
    if _digest(image, field) != expected:
        raise invalid_input(field, "a damaged or truncated file (its last rows are missing)", ACCEPTED_FILES)
    return image


def _digest(image: ImageFile.ImageFile, field: str) -> bytes:
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise _damaged(field, error) from error
    return hashlib.sha256(image.tobytes()).digest()


def _verify_png(data: bytes, field: str) -> None:
    """Decoding a PNG passes over the checksums of its pixels, and over rows that are missing at its end."""
    try:
        PngImagePlugin.PngImageFile(io.BytesIO(data)).verify()
        is_complete = png_rows_are_complete(data)
    except Exception as error:  # as above
        raise _damaged(field, error) from error
    if not is_complete:
        raise invalid_input(field, "a PNG whose last rows are missing", ACCEPTED_FILES)


def _reader(data: bytes) -> _Reader | None:
    # Pillow's readers themselves rather than Image.open, whose guard against bombs is a setting of the whole process.
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImagePlugin.PngImageFile
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImagePlugin.JpegImageFile
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    return None


def _upright(data: bytes, field: str) -> Image.Image:
    """The decoded picture as RGB or RGBA, upright, without metadata."""
    image, turned = _opened(data, field)
    try:
        image.load()
        decoded = _in_8_bits(image)
        if turned in _UPRIGHT:
            decoded = decoded.transpose(_UPRIGHT[turned])
    except MemoryError:
        raise
    except Exception as error:  # as above
        raise _damaged(field, error) from error
    decoded.info = {}
    return decoded


def _in_8_bits(image: Image.Image) -> Image.Image:
    """RGB or RGBA in sRGB."""
    if image.mode.startswith("I") or image.mode == "F":
        return _grey_from_16_bits(image)
    profile = image.info.get("icc_profile")
    if image.mode == "CMYK":
        return _to_srgb(image, profile) or image.convert("RGB")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        colours = _to_srgb(with_alpha.convert("RGB"), profile)
        if colours is None:
            return with_alpha
        colours.putalpha(with_alpha.getchannel("A"))
        return colours
    if image.mode == "L":
        return (_to_srgb(image, profile) or image).convert("RGB")
    rgb = image.convert("RGB")
    return _to_srgb(rgb, profile) or rgb


def _grey_from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.uint32)  # (height, width), 0 to 65,535
    grey = Image.fromarray(((values * 255 + 32_767) // 65_535).astype(np.uint8)).convert("RGB")
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image | None:
    """The picture in sRGB, or None where its profile is absent, damaged or made for another mode."""
    if not profile:
        return None
    with suppress(ImageCms.PyCMSError, OSError, ValueError, TypeError):
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return None


def _range(channel: Image.Image) -> tuple[int, int]:
    lowest, highest = channel.getextrema()
    return int(lowest), int(highest)  # type: ignore[arg-type]


def _written(size: tuple[int, int]) -> str:
    return f"{size[0]:,} x {size[1]:,} pixels"


def _damaged(field: str, error: Exception) -> InvalidInputError:
    return invalid_input(field, f"a damaged or truncated file ({type(error).__name__})", ACCEPTED_FILES)
