"""Photos from real files of every kind that callers send."""

import io
import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms

from detex_core.images import decode_photo, read_size
from tests.core.pictures import HEIGHT, WIDTH, chunk, close, encoded, gradient, png


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
    file = encoded(gradient(), file_format, exif=exif, **options)
    decoded = decode_photo(file, field="photo")
    assert read_size(file, field="photo") == decoded.size
    expected = upright[orientation](np.asarray(gradient()))
    assert close(decoded, Image.fromarray(np.ascontiguousarray(expected)), 3)


def test_no_metadata_is_kept() -> None:
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    decoded = decode_photo(encoded(gradient(), "JPEG", exif=exif), field="photo")
    assert decoded.info == {}
    assert len(decoded.getexif()) == 0


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


def test_an_animation_of_one_picture_is_one() -> None:
    """Editors that can animate write it so."""
    still = encoded(gradient(), "WEBP", lossless=True)
    frame = still[12:]
    header = struct.pack("<I", WIDTH - 1)[:3] + struct.pack("<I", HEIGHT - 1)[:3]
    chunks = (
        (b"VP8X", b"\x02\0\0\0" + header),
        (b"ANIM", bytes(6)),
        (b"ANMF", bytes(6) + header + b"\x64\0\0\0" + frame),
    )
    content = b"WEBP" + b"".join(name + struct.pack("<I", len(data)) + data for name, data in chunks)
    file = b"RIFF" + struct.pack("<I", len(content)) + content
    assert read_size(file, field="photo") == (WIDTH, HEIGHT)
    assert close(decode_photo(file, field="photo").convert("RGB"), gradient(), 0)
