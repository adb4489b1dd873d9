"""Photos and masks from real files of every kind that callers send."""

import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from detex_core.errors import InvalidInputError
from detex_core.images import MAX_IMAGE_BYTES, decode_mask, decode_photo
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

WIDTH, HEIGHT = 60, 40


def gradient(mode: str = "RGB") -> Image.Image:
    """A picture of 60 x 40 whose corners differ: red grows to the right, green downwards."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([columns * 4, rows * 6, np.full_like(rows, 90)], axis=-1).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, bits: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG written by hand: `rows` are the raw rows, each beginning with its filter byte."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def close(image: Image.Image, expected: Image.Image, tolerance: int) -> bool:
    difference = np.asarray(image).astype(int) - np.asarray(expected).astype(int)
    return image.size == expected.size and bool(np.abs(difference).mean() <= tolerance)


@pytest.mark.parametrize(
    ("data", "tolerance"),
    [
        (encoded(gradient()), 0),
        (encoded(gradient(), "JPEG", quality=95), 3),
        (encoded(gradient(), "JPEG", quality=95, progressive=True), 3),
        (encoded(gradient(), "WEBP", lossless=True), 0),
        (encoded(gradient(), "WEBP", quality=95), 4),
        (encoded(gradient().quantize(256)), 6),
        (encoded(gradient("CMYK"), "JPEG", quality=95), 4),
        (encoded(gradient("RGBA")), 0),
        (encoded(gradient("RGBA"), "WEBP", lossless=True), 0),
    ],
)
def test_every_way_to_write_a_photo_gives_the_same_picture(data: bytes, tolerance: int) -> None:
    image = decode_photo(data, field="photo")
    assert image.mode == "RGB"
    assert close(image, gradient(), tolerance)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P"])
def test_grey_and_palette_photos_become_colour(mode: str) -> None:
    image = decode_photo(encoded(gradient(mode)), field="photo")
    assert image.mode == "RGB"
    assert close(image, gradient(mode).convert("RGB"), 1)


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP"])
def test_grey_photos_of_other_formats(file_format: str) -> None:
    image = decode_photo(encoded(gradient("L"), file_format, quality=95), field="photo")
    assert close(image, gradient("L").convert("RGB"), 4)


def test_alpha_is_kept_where_it_shows() -> None:
    image = gradient("RGBA")
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, 30, 40))
    image.putalpha(alpha)
    for data in (encoded(image), encoded(image, "WEBP", lossless=True, exact=True)):
        decoded = decode_photo(data, field="photo")
        assert decoded.mode == "RGBA"
        assert decoded.tobytes() == image.tobytes()


def test_transparent_palettes_and_colours_become_alpha() -> None:
    palette = gradient().quantize(16)
    decoded = decode_photo(encoded(palette, transparency=3), field="photo")
    assert decoded.mode == "RGBA"
    assert np.array_equal(np.asarray(decoded.getchannel("A")) == 0, np.asarray(palette) == 3)
    keyed = decode_photo(encoded(gradient(), transparency=(0, 0, 90)), field="photo")
    assert keyed.mode == "RGBA"
    assert np.asarray(keyed.getchannel("A"))[0, 0] == 0
    assert np.asarray(keyed.getchannel("A"))[1:, 1:].min() == 255


def test_photos_of_16_bits_are_rounded_to_8() -> None:
    grey = np.linspace(0, 65_535, WIDTH * HEIGHT).round().astype(">u2").reshape(HEIGHT, WIDTH)
    rows = b"".join(b"\0" + row.tobytes() for row in grey)
    decoded = decode_photo(png(WIDTH, HEIGHT, 16, 0, rows), field="photo")
    assert decoded.mode == "RGB"
    expected = np.rint(grey.astype(np.float64) / 257)
    assert np.abs(np.asarray(decoded)[..., 0] - expected).max() <= 1
    assert np.asarray(decoded)[-1, -1].tolist() == [255, 255, 255]
    transparent = chunk(b"tRNS", struct.pack(">H", int(grey[0, 5])))
    keyed = decode_photo(png(WIDTH, HEIGHT, 16, 0, rows, transparent), field="photo")
    assert np.argwhere(np.asarray(keyed.getchannel("A")) == 0).tolist() == [[0, 5]]


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_colour_and_alpha_of_16_bits(colour: int, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 65_536, (HEIGHT, WIDTH, channels)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    decoded = np.asarray(decode_photo(png(WIDTH, HEIGHT, 16, colour, rows), field="photo"))
    assert decoded.shape[-1] == (3 if colour == 2 else 4)
    assert np.abs(decoded[..., 0].astype(float) - values[..., 0] / 257).max() <= 1
    assert np.abs(decoded[..., -1].astype(float) - values[..., -1] / 257).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_exif_rotation_is_applied(orientation: int, file_format: str) -> None:
    # What each value says to do with the stored picture to see it upright (TIFF 6.0, page 36).
    upright: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: np.rot90(a, 1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {"quality": 95} if file_format == "JPEG" else {}
    decoded = decode_photo(encoded(gradient(), file_format, exif=exif, **options), field="photo")
    expected = upright[orientation](np.asarray(gradient()))
    assert close(decoded, Image.fromarray(np.ascontiguousarray(expected)), 3)


def test_no_metadata_is_kept() -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    decoded = decode_photo(encoded(gradient(), "JPEG", exif=exif), field="photo")
    assert decoded.info == {}
    assert len(decoded.getexif()) == 0


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_spoil_a_photo() -> None:
    data = encoded(gradient(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xffgarbage")
    assert close(decode_photo(data, field="photo"), gradient(), 5)


def test_colour_profiles_are_brought_to_srgb() -> None:
    # A profile whose red and blue are swapped makes the conversion visible.
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    tags = {}
    for number in range(struct.unpack_from(">I", profile, 128)[0]):
        name, offset, size = struct.unpack_from(">4sII", profile, 132 + 12 * number)
        tags[name] = (132 + 12 * number, offset, size)
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    struct.pack_into(">II", profile, red[0] + 4, *blue[1:])
    struct.pack_into(">II", profile, blue[0] + 4, *red[1:])
    swapped = decode_photo(encoded(gradient(), icc_profile=bytes(profile)), field="photo")
    red_channel, green_channel, blue_channel = gradient().split()
    assert close(swapped, Image.merge("RGB", (blue_channel, green_channel, red_channel)), 3)
    with_alpha = gradient("RGBA")
    with_alpha.putpixel((0, 0), (1, 2, 3, 0))
    decoded = decode_photo(encoded(with_alpha, icc_profile=bytes(profile)), field="photo")
    assert close(decoded.convert("RGB"), swapped, 1)
    assert decoded.getpixel((0, 0))[3] == 0  # type: ignore[index]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA"])
def test_profiles_that_are_damaged_or_of_another_mode_are_passed_over(mode: str) -> None:
    grey_for_colour = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    file_format = "JPEG" if mode == "CMYK" else "PNG"
    for profile in (b"no profile at all", grey_for_colour):
        decoded = decode_photo(encoded(gradient(mode), file_format, icc_profile=profile), field="photo")
        assert close(decoded, gradient(mode).convert("RGB"), 4)


def test_of_a_multi_picture_file_the_first_is_taken() -> None:
    file = io.BytesIO()
    gradient().save(file, "MPO", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))], quality=95)
    assert close(decode_photo(file.getvalue(), field="photo"), gradient(), 3)


def refusal(data: bytes, decode: Callable[..., Image.Image] = decode_photo, **options: Any) -> str:
    with pytest.raises(InvalidInputError) as raised:
        decode(data, field="photos[2]", **options)
    (violation,) = raised.value.violations
    assert violation.field == "photos[2]"
    return violation.sentence()


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_animations_are_refused(file_format: str) -> None:
    data = encoded(gradient(), file_format, save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))])
    assert "animation of 2" in refusal(data)


@pytest.mark.parametrize("file_format", ["GIF", "BMP", "TIFF", "PPM", "ICO", "PDF"])
def test_other_formats_are_refused(file_format: str) -> None:
    assert "PNG, JPEG or WebP" in refusal(encoded(gradient(), file_format))


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"hello", b"<svg/>"])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    assert "PNG, JPEG or WebP" in refusal(data)


@pytest.mark.parametrize(
    "data",
    [encoded(gradient()), encoded(gradient(), "JPEG"), encoded(gradient(), "WEBP"), encoded(gradient("CMYK"), "JPEG")],
)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_truncated_files_are_refused(data: bytes, share: float) -> None:
    assert "damaged or cut off" in refusal(data[: int(len(data) * share)])


def test_a_flipped_bit_in_a_png_is_refused() -> None:
    data = bytearray(encoded(gradient()))
    data[data.index(b"IDAT") + 60] ^= 4
    assert "damaged" in refusal(bytes(data))


@pytest.mark.parametrize(("width", "height"), [(31, 100), (100, 31), (1, 1)])
def test_tiny_pictures_are_refused(width: int, height: int) -> None:
    assert f"{width} x {height} pixels" in refusal(encoded(Image.new("RGB", (width, height))))


@pytest.mark.parametrize(
    ("width", "height"), [(0, 0), (100_000, 100_000), (2**31 - 1, 2**31 - 1), (20_000, 40), (8_000, 7_000)]
)
def test_bombs_are_refused_by_their_header(width: int, height: int) -> None:
    data = png(width, height, 8, 2, b"\0")
    tracemalloc.start()
    try:
        sentence = refusal(data)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert "pixels" in sentence or "damaged" in sentence


def test_other_bombs_are_refused_by_their_header() -> None:
    jpeg = bytearray(encoded(gradient(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    struct.pack_into(">HH", jpeg, frame + 5, 60_000, 60_000)
    assert "60,000 x 60,000" in refusal(bytes(jpeg))
    webp = bytearray(encoded(gradient("RGBA"), "WEBP", lossless=True))
    extended = b"VP8X" + struct.pack("<I", 10) + bytes([0x10, 0, 0, 0]) + struct.pack("<I", 16_000)[:3] * 2
    bomb = b"RIFF" + struct.pack("<I", len(webp) - 8 + len(extended)) + b"WEBP" + extended + webp[12:]
    assert "photos[2]" in refusal(bytes(bomb))


def test_text_chunks_that_unpack_to_gigabytes_are_refused() -> None:
    text = chunk(b"zTXt", b"comment\0\0" + zlib.compress(bytes(80_000_000)))
    rows = (b"\0" + bytes(WIDTH * 3)) * HEIGHT
    refusal(png(WIDTH, HEIGHT, 8, 2, rows, text))


def test_files_that_are_too_large_are_refused() -> None:
    assert "67,108,865 bytes" in refusal(encoded(gradient()).ljust(MAX_IMAGE_BYTES + 1, b"\0"))


def test_photos_that_show_nothing_are_refused() -> None:
    assert "transparent" in refusal(encoded(Image.new("RGBA", (WIDTH, HEIGHT), (200, 0, 0, 0))))


@given(data=st.binary(max_size=200))
@settings(max_examples=150)
def test_random_bytes_are_refused(data: bytes) -> None:
    refusal(data)


SAMPLES = [
    encoded(gradient()),
    encoded(gradient().quantize(8)),
    encoded(gradient(), "JPEG"),
    encoded(gradient("CMYK"), "JPEG"),
    encoded(gradient("RGBA"), "WEBP", lossless=True),
    encoded(gradient(), "WEBP"),
]


@given(
    sample=st.sampled_from(SAMPLES),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
)
@settings(max_examples=300, deadline=None)
def test_damaged_files_decode_or_are_refused(sample: bytes, changes: list[tuple[float, int]]) -> None:
    data = bytearray(sample)
    for position, value in changes:
        data[int(position * len(data))] = value
    try:
        image = decode_photo(bytes(data), field="photo")
    except InvalidInputError:
        return
    assert image.mode in ("RGB", "RGBA")


def disc(mode: str = "L", size: tuple[int, int] = (WIDTH, HEIGHT)) -> Image.Image:
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]]
    inside = (rows - size[1] / 2) ** 2 + (columns - size[0] / 2) ** 2 < 15**2
    return Image.fromarray(np.where(inside, 255, 0).astype(np.uint8)).convert(mode)


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P", "LA", "RGBA"])
def test_masks_of_every_mode(mode: str) -> None:
    mask = decode_mask(encoded(disc(mode)), field="mask", size=(WIDTH, HEIGHT))
    assert mask.mode == "L"
    assert mask.tobytes() == disc().tobytes()


def test_masks_keep_soft_edges_and_take_16_bits() -> None:
    soft = gradient("L").resize((WIDTH, HEIGHT))
    soft.putpixel((0, 0), 255)
    assert decode_mask(encoded(soft), field="mask", size=soft.size).tobytes() == soft.tobytes()
    wide = (np.asarray(disc()).astype(np.uint16) * 257).astype(">u2")
    data = png(WIDTH, HEIGHT, 16, 0, b"".join(b"\0" + row.tobytes() for row in wide))
    assert decode_mask(data, field="mask", size=(WIDTH, HEIGHT)).tobytes() == disc().tobytes()


def test_transparent_pixels_of_a_mask_are_black() -> None:
    image = Image.new("RGBA", (WIDTH, HEIGHT), (255, 255, 255, 255))
    image.putalpha(disc())
    assert decode_mask(encoded(image), field="mask", size=image.size).tobytes() == disc().tobytes()


def test_a_mask_may_be_white_all_over_but_not_black() -> None:
    white = encoded(Image.new("L", (WIDTH, HEIGHT), 255))
    assert decode_mask(white, field="mask", size=(WIDTH, HEIGHT)).getextrema() == (255, 255)
    for level in (0, 127):
        black = encoded(Image.new("L", (WIDTH, HEIGHT), level))
        assert "black all over" in refusal(black, decode_mask, size=(WIDTH, HEIGHT))


def test_a_mask_of_another_size_is_refused() -> None:
    sentence = refusal(encoded(disc(size=(50, 40))), decode_mask, size=(WIDTH, HEIGHT))
    assert "50 x 40 pixels" in sentence
    assert "60 x 40 pixels" in sentence


def test_a_mask_is_rotated_like_its_photo() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    mask = decode_mask(encoded(disc(), exif=exif), field="mask", size=(HEIGHT, WIDTH))
    assert mask.size == (HEIGHT, WIDTH)
    assert "40 x 60" in refusal(encoded(disc(), exif=exif), decode_mask, size=(WIDTH, HEIGHT))
