"""Photos as they come from phones and scanners, against what the trainer itself makes of what is sent."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from pillow_heif import register_heif_opener

from detex_client import DetexClientError, photo_file
from detex_client.photo_file import MAX_SENT_BYTES, picture_format, sent_mask, sent_photo
from detex_core.images import decode_mask, decode_photo

register_heif_opener()
ORIENTATION = 0x0112
GPS = 0x8825


def picture(mode: str = "RGB", size: tuple[int, int] = (96, 64)) -> Image.Image:
    """Smooth colours, dark above and light below on the left half, so that its sides can be told."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    pixels = np.stack([255 * x, 255 * y, 255 * (1 - x) * y], -1).astype(np.uint8)
    made = Image.fromarray(pixels)
    if mode in ("RGBA", "LA"):
        made.putalpha(Image.fromarray((255 * (y > 0.5)).astype(np.uint8)))
    return made.convert(mode) if mode != "I;16" else Image.fromarray((65_535 * y).astype(np.uint16))


def saved(tmp_path: Path, made: Image.Image, name: str, **options: object) -> Path:
    path = tmp_path / name
    made.save(path, **options)
    return path


def trained_from(path: Path) -> Image.Image:
    """What the trainer sees of a photo."""
    return decode_photo(sent_photo(path, "photos[0]").data, field="photos[0]")


def distance(one: Image.Image, other: Image.Image) -> float:
    assert one.size == other.size
    return float(np.abs(np.asarray(one.convert("RGB"), float) - np.asarray(other.convert("RGB"), float)).mean())


CONVERTED = [("a.heic", "RGB"), ("a.heif", "RGBA"), ("a.avif", "RGB"), ("a.bmp", "RGB"), ("a.bmp", "L")]
CONVERTED += [("a.tiff", mode) for mode in ("RGB", "RGBA", "L", "CMYK", "P", "1", "I;16")]


@pytest.mark.parametrize(("name", "mode"), CONVERTED)
def test_what_the_trainer_does_not_take_is_converted(tmp_path: Path, name: str, mode: str) -> None:
    path = saved(tmp_path, picture(mode), name, **({"quality": 100} if name[-3:] in ("eic", "eif", "vif") else {}))
    sent = sent_photo(path, "photos[0]")
    assert sent.note.startswith(f"converted from {picture_format(path.read_bytes())}")
    assert sent.data == sent_photo(path, "photos[0]").data, "the same again, so that an upload can go on"
    shown = trained_from(path)
    with Image.open(path) as image:
        expected = image.convert("RGB") if mode != "I;16" else picture("I;16").point(lambda v: v / 256).convert("L")
        assert distance(shown, expected) < 4
    assert ("A" in shown.getbands()) is (mode == "RGBA")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(["PNG", "JPEG", "WEBP"]),
    mode=st.sampled_from(["RGB", "L", "RGBA"]),
    width=st.integers(32, 200),
    height=st.integers(32, 200),
)
def test_what_the_trainer_takes_is_sent_as_it_is(tmp_path: Path, form: str, mode: str, width: int, height: int) -> None:
    if form == "JPEG" and mode == "RGBA":
        mode = "CMYK"
    path = saved(tmp_path, picture(mode, (width, height)), "photo.bin", format=form)
    sent = sent_photo(path, "photos[0]")
    assert (sent.data, sent.note) == (path.read_bytes(), "")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=64))
@example(data=b"II*\0")
@example(data=b"BM" + bytes(60))
@example(data=b"\0\0\0\x18ftypheic" + bytes(40))
@example(data=b"\0\0\0\x18ftypavif" + bytes(40))
@example(data=b"\xff\xd8\xff")
def test_what_is_no_known_picture_is_the_trainers_to_judge_or_told_by_its_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "some file.jpg"
    path.write_bytes(data)
    if picture_format(data) in ("", "PNG", "JPEG", "WebP"):
        assert sent_photo(path, "photos[0]").data == data
    else:
        with pytest.raises(DetexClientError, match=r"some file\.jpg"):
            sent_photo(path, "photos[0]")


@pytest.mark.parametrize("name", ["turned.tiff", "turned.heic"])
def test_photos_come_upright_and_say_nothing_of_where_they_were_taken(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif.get_ifd(GPS)[1] = "N"
    sent = sent_photo(saved(tmp_path, picture(), name, exif=exif), "photos[0]")
    with Image.open(io.BytesIO(sent.data)) as image:
        assert image.size in ((64, 96), (96, 64))
        assert not dict(image.getexif())
        assert not image.info.get("icc_profile")
    if name.endswith("tiff"):
        assert sent.size == (64, 96)


@pytest.mark.parametrize("turned", [1, 6, 8])
def test_jpegs_keep_their_orientation_and_pixels_and_nothing_of_the_place(tmp_path: Path, turned: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = turned
    exif[0x010F] = "a camera"
    exif.get_ifd(GPS)[1] = "N"
    path = saved(tmp_path, picture(), "phone.jpg", exif=exif, comment=b"at home", quality=95)
    assert b"a camera" in path.read_bytes()
    sent = sent_photo(path, "photos[0]")
    assert not [text for text in (b"a camera", b"at home") if text in sent.data]
    with Image.open(io.BytesIO(sent.data)) as image:
        assert not image.getexif().get_ifd(GPS)
        assert image.getexif().get(ORIENTATION, 1) == turned
    before = decode_photo(path.read_bytes(), field="photos[0]")
    assert trained_from(path).tobytes() == before.tobytes()
    assert before.size == ((96, 64) if turned == 1 else (64, 96))


def test_a_panorama_is_reduced_to_the_longest_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_file, "MAX_IMAGE_SIDE", 200)
    sent = sent_photo(saved(tmp_path, picture(size=(400, 80)), "wide.jpg"), "photos[0]")
    assert sent.size == (200, 40)


def test_colours_of_a_profile_are_brought_to_srgb(tmp_path: Path) -> None:
    wide = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ"))
    plain = picture()
    path = saved(
        tmp_path, plain, "wide.tiff", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    )
    assert distance(trained_from(path), plain) < 3
    odd = saved(tmp_path, plain, "odd.tiff", icc_profile=wide.tobytes())
    assert trained_from(odd).size == plain.size


def test_too_many_pixels_are_reduced_and_told_and_the_mask_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_file, "MAX_IMAGE_PIXELS", 5_000)
    monkeypatch.setattr(photo_file, "REDUCED_PIXELS", 2_000)
    for name in ("large.jpg", "large.tiff"):
        sent = sent_photo(saved(tmp_path, picture(size=(120, 60)), name), "photos[0]")
        assert sent.size == (63, 32)
        assert "reduced from 120 x 60 to 63 x 32" in sent.note
        assert decode_photo(sent.data, field="photos[0]").size == sent.size
        mask = sent_mask(saved(tmp_path, picture("L", (120, 60)), "mask.png"), "masks[0]", sent)
        assert decode_mask(mask.data, field="masks[0]", size=sent.size).size == sent.size
        other = saved(tmp_path, picture("L", (12, 60)), "other.png")
        assert sent_mask(other, "masks[0]", sent).data == other.read_bytes()


def test_a_file_of_too_many_bytes_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo_file, "MAX_SENT_BYTES", 2_000)
    assert MAX_SENT_BYTES == 32 * 1024**2
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    sent = sent_photo(saved(tmp_path, noise, "noise.png"), "photos[0]")
    assert sent.note == "re-encoded, as it was too large"
    assert len(sent.data) < 12_288


@pytest.mark.parametrize("name", ["moving.gif", "pages.tiff"])
def test_animations_and_pages_are_told_by_the_file(tmp_path: Path, name: str) -> None:
    frames = [picture("RGB").point(lambda value, step=step: value // (step + 1)) for step in range(3)]
    path = saved(tmp_path, frames[0], name, save_all=True, append_images=frames[1:])
    with pytest.raises(DetexClientError) as raised:
        sent_photo(path, "photos[1]")
    assert name in str(raised.value)
    assert "3 frames or pages" in str(raised.value)
    assert raised.value.violations[0].field == "photos[1]"


@pytest.mark.parametrize("name", ["cut.heic", "cut.tiff", "cut.avif"])
def test_a_damaged_file_is_told_by_its_name(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, picture(), name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DetexClientError, match=name.replace(".", r"\.")):
        sent_photo(path, "photos[0]")
