"""Places of subjects and photos to edit, from Python and from the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from detex_client import (
    Box,
    DetexClientError,
    Edit,
    EditKind,
    GeneratorClient,
    PictureRequest,
    Provenance,
    Region,
    RegionMode,
    RequestFailed,
)
from detex_protos.v1 import generator_pb2
from tests.client.conftest import Outcome, Scripted

Detex = Callable[..., Outcome]
LEFT = Box(0.0, 0.25, 0.5, 1.0)


def test_regions_and_an_edit_travel(scripted: Scripted, generator_client: GeneratorClient, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"a photo")
    generator_client.generate(
        "[my-mug] next to [my-vase]",
        regions=(Region("my-mug", LEFT, weight=2.0), Region("", b"a mask", prompt="a red vase")),
        region_mode=RegionMode.JOINT,
        edit=Edit(EditKind.KEEP_PRODUCT, photo, b"its mask", strength=0.5, shadow=0.25),
    )
    request = scripted.generator.requests[0]
    first, second = request.regions
    assert (first.concept, first.weight, first.WhichOneof("place")) == ("my-mug", 2, "box")
    assert (first.box.left, first.box.top, first.box.right, first.box.bottom) == (0, 0.25, 0.5, 1)
    assert (second.concept, second.mask, second.prompt) == ("", b"a mask", "a red vase")
    assert request.region_mode == generator_pb2.REGION_MODE_JOINT
    edit = request.edit
    assert (edit.kind, edit.image, edit.mask) == (generator_pb2.EDIT_KIND_KEEP_PRODUCT, b"a photo", b"its mask")
    assert (edit.strength, edit.shadow) == (0.5, 0.25)


def test_what_is_not_given_is_not_sent(scripted: Scripted, generator_client: GeneratorClient) -> None:
    generator_client.generate("a mug")
    generator_client.generate("a mug", edit=Edit(EditKind.IMAGE_TO_IMAGE, b"a photo"))
    plain, edited = scripted.generator.requests
    assert (len(plain.regions), plain.region_mode, plain.HasField("edit")) == (0, 0, False)
    assert not edited.edit.HasField("strength")


def test_a_file_that_is_not_there_is_refused_here(generator_client: GeneratorClient, tmp_path: Path) -> None:
    with pytest.raises(DetexClientError, match=r"edit\.image: must be a readable file, got .*missing\.png"):
        generator_client.generate("a mug", edit=Edit(EditKind.IMAGE_TO_IMAGE, tmp_path / "missing.png"))
    with pytest.raises(DetexClientError, match=r"regions\[0\]\.mask"):
        generator_client.generate("a mug", regions=(Region("my-mug", tmp_path / "missing.png"),))


def test_errors_about_a_file_of_several_name_it(
    scripted: Scripted, generator_client: GeneratorClient, detex: Detex, tmp_path: Path
) -> None:
    good, bad = tmp_path / "front.png", tmp_path / "back.png"
    good.write_bytes(b"a picture")
    bad.write_bytes(b"no picture")
    regions = (Region("my-mug", good), Region("my-vase", bad))
    with pytest.raises(DetexClientError) as raised:
        generator_client.generate("[my-mug] next to [my-vase]", regions=regions)
    assert raised.value.message.startswith('regions[1].mask "back.png": must be a picture, got a file')
    assert [each.field for each in raised.value.violations] == ["regions[1].mask"]
    assert raised.value.violations[0].description.startswith('"back.png": Must be a picture, got a file')

    requests = [PictureRequest("a mug"), PictureRequest("two", regions=regions)]
    failed = [each for each in generator_client.generate_many(requests) if isinstance(each.event, RequestFailed)]
    assert [each.request_index for each in failed] == [1]
    assert isinstance(failed[0].event, RequestFailed)
    assert 'regions[1].mask "back.png": ' in failed[0].event.error.message

    outcome = detex(
        "generate", "[my-mug] next to [my-vase]", "--region", f"my-mug={good}", "--region", f"my-vase={bad}",
        "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert outcome.exit_code == 2
    assert 'regions[1].mask "back.png": must be a picture, got a file' in outcome.stderr


def test_provenance_comes_back() -> None:
    message = generator_pb2.Provenance(
        solver=generator_pb2.SOLVER_DDIM,
        region_mode=generator_pb2.REGION_MODE_BLEND,
        regions=[
            generator_pb2.RegionProvenance(
                concept="my-mug", box=generator_pb2.Box(left=0, top=0.25, right=0.5, bottom=1), weight=1, prompt="a"
            ),
            generator_pb2.RegionProvenance(mask_sha256="00", weight=2, prompt="b"),
        ],
        edit=generator_pb2.EditProvenance(kind=generator_pb2.EDIT_KIND_INPAINT, image_sha256="11", strength=0.5),
    )
    told = Provenance.from_wire(message)
    assert [(region.concept, region.box, region.mask_sha256) for region in told.regions] == [
        ("my-mug", LEFT, ""),
        ("", None, "00"),
    ]
    assert told.region_mode is RegionMode.BLEND
    assert told.edit is not None
    assert (told.edit.kind, told.edit.image_sha256, told.edit.strength) == (EditKind.INPAINT, "11", 0.5)
    plain = Provenance.from_wire(generator_pb2.Provenance(solver=generator_pb2.SOLVER_DDIM))
    assert (plain.regions, plain.region_mode, plain.edit) == ((), None, None)


def test_regions_on_the_command_line(detex: Detex, scripted: Scripted, tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    mask.write_bytes(b"a mask")
    outcome = detex(
        *("generate", "[my-mug] next to [my-vase]", "--out", str(tmp_path), "--region-mode", "joint"),
        *("--region", "my-mug=0,0.25,0.5,1", "--region", f"my-vase={mask}"),
    )
    assert outcome.exit_code == 0, outcome.stderr
    request = scripted.generator.requests[0]
    first, second = request.regions
    assert (first.concept, first.box.top, first.box.right) == ("my-mug", 0.25, 0.5)
    assert (second.concept, second.mask) == ("my-vase", b"a mask")
    assert request.region_mode == generator_pb2.REGION_MODE_JOINT


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        (("--strength", "0.6"), generator_pb2.EDIT_KIND_IMAGE_TO_IMAGE),
        (("--mask", "mask.png"), generator_pb2.EDIT_KIND_INPAINT),
        (("--mask", "mask.png", "--keep-product", "--shadow", "0.5"), generator_pb2.EDIT_KIND_KEEP_PRODUCT),
        (("--keep-product",), generator_pb2.EDIT_KIND_KEEP_PRODUCT),
    ],
)
def test_edits_on_the_command_line(
    detex: Detex,
    scripted: Scripted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    kind: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photo.png", "mask.png"):
        Path(name).write_bytes(name.encode())
    outcome = detex("generate", "a mug on a beach", "--image", "photo.png", *options)
    assert outcome.exit_code == 0, outcome.stderr
    edit = scripted.generator.requests[0].edit
    assert (edit.kind, edit.image) == (kind, b"photo.png")
    assert edit.mask == (b"mask.png" if "--mask" in options else b"")
    assert edit.shadow == (0.5 if "--shadow" in options else 0)
    assert edit.HasField("strength") == ("--strength" in options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ("--region", "my-mug"),
            "--region: must be NAME=LEFT,TOP,RIGHT,BOTTOM as fractions of 0 to 1, or NAME=MASK.png, got my-mug.",
        ),
        (("--region", "my-mug=0,1"), "NAME=LEFT,TOP,RIGHT,BOTTOM"),
        (("--region", "my-mug=a,b,c,d"), "NAME=LEFT,TOP,RIGHT,BOTTOM"),
        (("--region", "my-mug=missing.png"), "missing.png"),
        (("--mask", "mask.png"), "must be used with --image"),
        (("--strength", "0.5"), "must be used with --image"),
        (("--keep-product",), "must be used with --image"),
        (("--image", "missing.png"), "missing.png"),
    ],
)
def test_what_cannot_be_meant_is_told(detex: Detex, options: tuple[str, ...], said: str) -> None:
    outcome = detex("generate", "a mug", *options)
    assert outcome.exit_code == 2, outcome.stderr
    assert said in outcome.stderr
    assert "Traceback" not in outcome.stderr
