"""Places of subjects over the wire."""

import hashlib
import io
from typing import Any

import grpc
import pytest
from PIL import Image

from detex_generator.request.provenance import read_provenance
from detex_protos.v1.generator_pb2 import Box, Region, RegionMode
from tests.generator.running_generator import (
    RunningGenerator,
    pixels,
    refusal_of,
    signal_to_noise_decibels,
)

BLEND, JOINT = RegionMode.REGION_MODE_BLEND, RegionMode.REGION_MODE_JOINT
LEFT = Box(left=0, top=0, right=0.5, bottom=1)
RIGHT = Box(left=0.5, top=0, right=1, bottom=1)
PROMPT = "[my-mug] next to [my-bowl] on a beach"
REQUEST: dict[str, Any] = {"prompt": PROMPT, "seed": 7, "steps": 6}
SIDE_BY_SIDE = [Region(concept="my-mug", box=LEFT), Region(concept="my-bowl", box=RIGHT)]
SAME = 50.0  # decibels


def mask(size: tuple[int, int] = (40, 40), level: int = 255) -> bytes:
    picture = Image.new("L", size, 0)
    picture.paste(level, (0, 0, size[0] // 2, size[1]))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def drawn(generator: RunningGenerator, **fields: Any) -> Any:
    return pixels(generator.draw(**(REQUEST | fields))[0].png)


@pytest.mark.parametrize("mode", [BLEND, JOINT])
def test_places_change_the_picture_and_exchanged_places_change_it_again(
    generator: RunningGenerator, concepts: object, mode: int
) -> None:
    crossed = [Region(concept="my-bowl", box=LEFT), Region(concept="my-mug", box=RIGHT)]
    plain = drawn(generator)
    placed = drawn(generator, regions=SIDE_BY_SIDE, region_mode=mode)
    exchanged = drawn(generator, regions=crossed, region_mode=mode)
    for one, other in ((plain, placed), (placed, exchanged), (plain, exchanged)):
        assert signal_to_noise_decibels(one, other) < SAME


def test_blending_is_what_is_done_where_nothing_is_said(generator: RunningGenerator, concepts: object) -> None:
    told, untold = (drawn(generator, regions=SIDE_BY_SIDE, region_mode=mode) for mode in (BLEND, 0))
    assert signal_to_noise_decibels(told, untold) == float("inf")


def test_the_order_of_regions_is_nothing(generator: RunningGenerator, concepts: object) -> None:
    one, other = (drawn(generator, regions=regions) for regions in (SIDE_BY_SIDE, SIDE_BY_SIDE[::-1]))
    assert signal_to_noise_decibels(one, other) >= SAME


def test_a_region_reads_the_prompt_without_the_other_subjects(generator: RunningGenerator, concepts: object) -> None:
    written = [
        Region(concept="my-mug", box=LEFT, prompt="[my-mug] on a beach"),
        Region(box=RIGHT, prompt="[my-bowl] on a beach"),
    ]
    one, other = (drawn(generator, regions=regions) for regions in (SIDE_BY_SIDE, written))
    assert signal_to_noise_decibels(one, other) == float("inf")


def test_a_region_may_bring_words_that_the_prompt_has_not(generator: RunningGenerator, concepts: object) -> None:
    words = [Region(box=LEFT, prompt="a red [my-lamp]"), Region(box=RIGHT, prompt="a vase", weight=2.5)]
    (image,) = generator.draw(**(REQUEST | {"prompt": "a table in snow", "regions": words}))
    assert [concept.reference.name for concept in image.provenance.concepts] == ["my-lamp"]
    assert signal_to_noise_decibels(pixels(image.png), drawn(generator, prompt="a table in snow")) < SAME


def test_a_box_and_a_mask_of_it_are_nearly_the_same(generator: RunningGenerator, concepts: object) -> None:
    boxed = drawn(generator, regions=[Region(concept="my-mug", box=LEFT)])
    masked = drawn(generator, regions=[Region(concept="my-mug", mask=mask())])
    other = drawn(generator, regions=[Region(concept="my-mug", box=RIGHT)])
    assert signal_to_noise_decibels(boxed, masked) > signal_to_noise_decibels(boxed, other) + 3


def test_company_with_and_without_places_changes_nothing(generator: RunningGenerator, concepts: object) -> None:
    requests: list[dict[str, Any]] = [
        {"regions": SIDE_BY_SIDE},
        {},
        {"regions": SIDE_BY_SIDE[:1], "region_mode": JOINT},
        {"prompt": "[my-lamp] in a forest", "guidance_scale": 1.0},
    ]
    alone = [drawn(generator, **request) for request in requests]
    calls = [generator.start(**(REQUEST | request)) for request in requests]
    for call, wanted in zip(calls, alone, strict=True):
        (image,) = [response.image for response in call if response.HasField("image")]
        assert signal_to_noise_decibels(pixels(image.png), wanted) >= SAME


def test_provenance_tells_the_places(generator: RunningGenerator, concepts: object) -> None:
    regions = [Region(concept="my-mug", box=LEFT, weight=2), Region(concept="my-bowl", mask=mask())]
    (image,) = generator.draw(**REQUEST, regions=regions)
    told = image.provenance
    assert told.region_mode == BLEND
    assert [region.concept for region in told.regions] == ["my-mug", "my-bowl"]
    assert [region.prompt for region in told.regions] == ["[my-mug] on a beach", "[my-bowl] on a beach"]
    assert [region.weight for region in told.regions] == [2, 1]
    assert told.regions[0].box == LEFT
    assert told.regions[1].mask_sha256 == hashlib.sha256(mask()).hexdigest()
    assert not told.regions[1].HasField("box")
    written = read_provenance(image.png).composition
    assert written is not None
    assert (written.mode, written.regions[0].box) == ("blend", (0, 0, 0.5, 1))
    (plain,) = generator.draw(**REQUEST)
    assert read_provenance(plain.png).composition is None
    assert not plain.provenance.regions


def box(left: float = 0, top: float = 0, right: float = 1, bottom: float = 1) -> Box:
    return Box(left=left, top=top, right=right, bottom=bottom)


WRONG: list[tuple[str, dict[str, Any], dict[str, str]]] = [
    ("unknown", {"regions": [Region(concept="my-lamp", box=LEFT)]}, {"regions[0].concept": "my-bowl, my-mug"}),
    (
        "no subject",
        {"prompt": "[my-mug:pose:0]", "regions": [Region(concept="my-mug", box=LEFT)]},
        {"regions[0].concept": "none is left"},
    ),
    ("nothing", {"regions": [Region(box=LEFT)]}, {"regions[0].concept": "no concept"}),
    (
        "twice",
        {"regions": [Region(concept="my-mug", box=LEFT), Region(concept="my-mug", box=RIGHT)]},
        {"regions[1].concept": "without a region (my-bowl)"},
    ),
    ("nowhere", {"regions": [Region(concept="my-mug")]}, {"regions[0].box": "a box or a mask"}),
    ("no width", {"regions": [Region(concept="my-mug", box=box(left=0.5, right=0.5))]}, {"regions[0].box": "left 0.5"}),
    ("outside", {"regions": [Region(concept="my-mug", box=box(bottom=1.5))]}, {"regions[0].box": "bottom 1.5"}),
    ("NaN", {"regions": [Region(concept="my-mug", box=box(top=float("nan")))]}, {"regions[0].box": "top nan"}),
    ("no mask", {"regions": [Region(concept="my-mug", mask=b"no")]}, {"regions[0].mask": "PNG, JPEG or WebP"}),
    (
        "black mask",
        {"regions": [Region(concept="my-mug", mask=mask(level=0))]},
        {"regions[0].mask": "all-black"},
    ),
    ("no weight", {"regions": [Region(concept="my-mug", box=LEFT, weight=0)]}, {"regions[0].weight": "above 0"}),
    (
        "a prompt of its own",
        {"regions": [Region(concept="my-mug", box=LEFT, prompt="a mug")], "region_mode": JOINT},
        {"regions[0].prompt": "has one prompt"},
    ),
    (
        "a wrong prompt",
        {"regions": [Region(concept="my-mug", box=LEFT, prompt="[My Mug]")]},
        {"regions[0].prompt": "[My Mug]"},
    ),
    (
        "a long prompt",
        {"regions": [Region(concept="my-mug", box=LEFT, prompt="a " * 90)]},
        {"regions[0].prompt": "90 tokens"},
    ),
    ("unknown mode", {"regions": SIDE_BY_SIDE, "region_mode": 9}, {"region_mode": "REGION_MODE_JOINT"}),
    ("many", {"regions": [Region(box=LEFT, prompt="a mug")] * 9}, {"regions": "at most 8"}),
]


@pytest.mark.parametrize(("fields", "violations"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
def test_a_wrong_region_is_told_what_is_wrong(
    generator: RunningGenerator, concepts: object, fields: dict[str, Any], violations: dict[str, str]
) -> None:
    refusal = refusal_of(generator.start(**(REQUEST | fields)))
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.violations.keys() == violations.keys()
    for field, words in violations.items():
        assert words in refusal.violations[field]


def test_a_concept_of_a_region_is_looked_for(generator: RunningGenerator, concepts: object) -> None:
    refusal = refusal_of(generator.start(**(REQUEST | {"regions": [Region(box=LEFT, prompt="[nobody]")]})))
    assert refusal.code == grpc.StatusCode.NOT_FOUND
    assert refusal.message.startswith("regions[0].prompt:")
    assert "nobody" in refusal.message
