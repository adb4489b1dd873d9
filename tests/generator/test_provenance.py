"""Provenance in PNGs."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from detex_core.errors import InvalidInputError
from detex_generator.request.provenance import (
    CompositionProvenance,
    ConceptProvenance,
    EditProvenance,
    Provenance,
    RegionProvenance,
    read_provenance,
    write_png,
)

HASH = "0" * 64
REGIONS = st.builds(
    RegionProvenance,
    concept=st.sampled_from(["", "my-mug"]),
    box=st.none() | st.just((0.0, 0.25, 0.5, 1.0)),
    mask_sha256=st.sampled_from(["", HASH]),
    weight=st.floats(0.1, 10),
    prompt=st.text(st.characters(exclude_categories=["Cs"])),
)
PROVENANCE = st.builds(
    Provenance,
    prompt=st.text(st.characters(exclude_categories=["Cs"])),
    negative_prompt=st.text(st.characters(exclude_categories=["Cs"])),
    base_model=st.just("showroom"),
    base_model_fingerprint=st.just(HASH),
    concepts=st.lists(
        st.builds(ConceptProvenance, name=st.just("my-mug"), version=st.just("v"), manifest_sha256=st.just(HASH))
    ).map(tuple),
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 500),
    guidance_scale=st.floats(0, 50),
    solver=st.sampled_from(["ddim", "euler", "dpm_solver_pp_2m", "lcm"]),
    width=st.integers(8, 4096),
    height=st.integers(8, 4096),
    generator_version=st.just("0.1.0"),
    composition=st.none()
    | st.builds(
        CompositionProvenance,
        mode=st.sampled_from(["blend", "joint"]),
        regions=st.lists(REGIONS, min_size=1, max_size=2).map(tuple),
    ),
    edit=st.none()
    | st.builds(
        EditProvenance,
        kind=st.sampled_from(["image_to_image", "inpaint", "keep_product"]),
        image_sha256=st.just(HASH),
        mask_sha256=st.sampled_from(["", HASH]),
        strength=st.floats(0.1, 1),
        shadow=st.floats(0, 1),
    ),
    guidance_interval=st.none() | st.just((0.25, 0.75)),
)


@settings(deadline=None)
@given(PROVENANCE)
def test_it_is_read_as_it_was_written(provenance: Provenance) -> None:
    picture = Image.new("RGB", (8, 8), "teal")
    png = write_png(picture, provenance)
    assert read_provenance(png) == provenance
    assert write_png(picture, provenance) == png
    with Image.open(io.BytesIO(png)) as image:
        assert image.getpixel((3, 3)) == picture.getpixel((3, 3))


def png_with(text: str | None) -> bytes:
    information = PngImagePlugin.PngInfo()
    if text is not None:
        information.add_text("detex", text)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format="PNG", pnginfo=information)
    return buffer.getvalue()


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, format="JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "given"),
    [
        (b"", "0 bytes that are not a PNG"),
        (jpeg(), "bytes that are not a PNG"),
        (png_with(None), "a PNG without the text chunk 'detex'"),
        (png_with("{}"), "the text chunk '{}'"),
        (png_with("no JSON"), "the text chunk 'no JSON'"),
    ],
    ids=["nothing", "JPEG", "no chunk", "empty", "no JSON"],
)
def test_what_carries_none_is_refused(data: bytes, given: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_provenance(data)
    (violation,) = caught.value.violations
    assert violation.field == "png"
    assert given in violation.given
