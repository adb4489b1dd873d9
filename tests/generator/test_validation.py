"""Any message of the wire contract is either a request in range or refused by field."""

import io
import math
from collections.abc import Mapping
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from detex_core.errors import InvalidInputError, Violation
from detex_core.settings import BaseModelSettings
from detex_diffusion.solver import Solver
from detex_generator.api.validation import checked_request
from detex_generator.request.generation_request import GenerationRequest
from detex_generator.settings import GeneratorSettings
from detex_protos.v1 import generator_pb2
from detex_protos.v1.generator_pb2 import Edit, GenerateRequest, GuidanceInterval

SETTINGS = GeneratorSettings(max_images_per_request=16, max_steps=100, max_image_pixels=64 * 64)
BASE_MODEL = BaseModelSettings(name="showroom", source="embedded", default_steps=30, default_guidance_scale=4.5)
UINT32 = st.integers(0, 2**32 - 1)
WORDS = st.lists(
    st.sampled_from(["[my-mug]", "[my-mug:pose:1]", " on ", "\\[", "[", "]", "写真", "a", "[A]", "\x00"]), max_size=8
).map("".join)
FIELDS: Mapping[str, st.SearchStrategy[Any]] = {
    "prompt": WORDS | st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    "negative_prompt": WORDS,
    "count": UINT32 | st.integers(0, 20),
    "seed": st.integers(0, 2**32 - 1) | st.integers(2**32 - 20, 2**32 - 1),
    "steps": UINT32 | st.integers(0, 101),
    "guidance_scale": st.floats() | st.floats(-1, 51),
    "solver": st.integers(-(2**31), 2**31 - 1) | st.integers(0, 3),
    "width": UINT32 | st.integers(0, 8).map(lambda n: 8 * n),
    "height": UINT32 | st.integers(0, 8).map(lambda n: 8 * n),
    "preview_interval_steps": UINT32,
    "guidance_interval": st.builds(GuidanceInterval, start=st.floats(), end=st.floats() | st.floats(0, 1) | st.none())
    | st.builds(GuidanceInterval, start=st.floats(0, 1), end=st.floats(0, 1)),
    "concept_versions": st.dictionaries(
        st.sampled_from(["my-mug", "other", ""]), st.sampled_from(["", "v1", "20260131T120000Z-0123abcd"]), max_size=2
    ),
}


def check(message: GenerateRequest) -> GenerationRequest:
    return checked_request(message, BASE_MODEL, width=64, height=32, settings=SETTINGS)


def violated(**fields: Any) -> set[str]:
    try:
        check(GenerateRequest(**fields))
    except InvalidInputError as error:
        return {violation.field.partition(".")[0] for violation in error.violations}
    return set()


@settings(deadline=None)
@given(st.fixed_dictionaries({}, optional=FIELDS))
@example({"prompt": "a", "guidance_scale": math.nan})
def test_a_message_is_a_request_in_range_or_refused_by_its_fields(fields: dict[str, Any]) -> None:
    found: tuple[Violation, ...] = ()
    try:
        request = check(GenerateRequest(**fields))
    except InvalidInputError as error:
        found = error.violations
    # What is wrong with a field is told whatever else is wrong: no violation hides another.
    for field in ("steps", "guidance_scale", "solver", "count", "guidance_interval"):
        if field in fields:
            assert (field in violated(prompt="a", **{field: fields[field]})) == (
                field in {v.field.partition(".")[0] for v in found}
            )
    for violation in found:
        assert violation.field.partition(".")[0] in FIELDS
        assert violation.given
        assert violation.accepted
    if found:
        return
    assert request.prompt.strip()
    assert 1 <= request.count <= 16
    assert 0 <= request.seed <= request.seed + request.count - 1 < 2**32
    assert 1 <= request.steps <= 100
    assert 0 <= request.guidance_scale <= 50
    start, end = request.guidance_interval
    assert 0 <= start < end <= 1
    assert request.guided == any(request.guides(step) for step in range(request.steps))
    assert request.width % 8 == request.height % 8 == 0
    assert 64 <= request.width * request.height <= 64 * 64
    assert set(request.concept_versions) <= {"my-mug"}
    for field in ("seed", "steps", "guidance_scale", "prompt", "negative_prompt"):
        if field in fields:
            assert getattr(request, field) == fields[field]


def test_defaults_are_those_of_the_base_model_and_the_contract() -> None:
    request = check(GenerateRequest(prompt="a mug"))
    assert (request.steps, request.guidance_scale) == (30, 4.5)
    assert (request.width, request.height, request.count) == (64, 32, 1)
    assert request.solver is Solver.DPM_SOLVER_PP_2M
    assert 0 <= request.seed < 2**32
    assert request.guided


def test_a_part_of_the_steps_is_guided() -> None:
    def guided(start: float, end: float | None = None, **fields: Any) -> list[int]:
        interval = GuidanceInterval(start=start, end=end)
        request = check(GenerateRequest(prompt="a", steps=10, guidance_scale=5, guidance_interval=interval, **fields))
        return [step for step in range(10) if request.guides(step)]

    assert guided(0) == list(range(10))
    assert guided(0.3) == [3, 4, 5, 6, 7, 8, 9]
    assert guided(0.1, 0.7) == [1, 2, 3, 4, 5, 6]
    assert guided(0.25, 0.5) == [3, 4]
    assert guided(0.11, 0.19) == []
    for start, end in ((0.5, 0.5), (0.5, 0.2), (-0.1, 1.0), (0.0, 1.5), (0.0, 0.0), (math.nan, 1.0)):
        assert violated(prompt="a", guidance_interval=GuidanceInterval(start=start, end=end)) == {"guidance_interval"}


def test_the_usual_solver_is_the_base_models() -> None:
    def solver(message: GenerateRequest, default_solver: str = "") -> Solver:
        base_model = BASE_MODEL.model_copy(update={"default_solver": default_solver})
        request = checked_request(message, base_model, width=64, height=32, settings=SETTINGS, usual_solver=Solver.LCM)
        return request.solver

    assert solver(GenerateRequest(prompt="a")) is Solver.LCM
    assert solver(GenerateRequest(prompt="a"), "euler") is Solver.EULER
    assert solver(GenerateRequest(prompt="a", solver="SOLVER_TCD"), "euler") is Solver.TCD


def test_without_guidance_the_negative_prompt_needs_no_concepts() -> None:
    request = check(GenerateRequest(prompt="[my-mug] in snow", negative_prompt="[your-mug]", guidance_scale=1))
    assert not request.guided
    assert request.concepts() == ("my-mug",)
    guided = check(GenerateRequest(prompt="[my-mug] in snow", negative_prompt="[your-mug]", guidance_scale=1.01))
    assert guided.concepts() == ("my-mug", "your-mug")


@settings(deadline=None, max_examples=60)
@given(
    st.integers(64, 900), st.integers(64, 900), st.sampled_from([(1024, 1024), (512, 512), (1152, 896)]), st.booleans()
)
@example(160, 120, (1024, 1024), False)  # shapes, in tens of pixels, that were refused once
@example(192, 108, (1024, 1024), False)
def test_a_size_that_is_chosen_for_a_photo_keeps_to_the_limit(
    width: int, height: int, made_for: tuple[int, int], strict: bool
) -> None:
    limits = GeneratorSettings(max_image_pixels=256 * 256 if strict else made_for[0] * made_for[1])
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, format="PNG")
    edit = Edit(kind=generator_pb2.EDIT_KIND_IMAGE_TO_IMAGE, image=buffer.getvalue())
    request = checked_request(
        GenerateRequest(prompt="a", edit=edit), BASE_MODEL, width=made_for[0], height=made_for[1], settings=limits
    )
    assert request.width * request.height <= limits.max_image_pixels
