"""Requests of the wire contract, checked: every violation is found and told at once."""

import math
import secrets
from collections.abc import Iterator

from detex_core.artifact.manifest import CONCEPT_VERSION
from detex_core.errors import InvalidInputError, Violation, invalid_input
from detex_core.name_form import shown_text
from detex_core.prompt import Prompt
from detex_core.settings import BaseModelSettings
from detex_diffusion.solver import Solver
from detex_generator.api.content_validation import checked_composition, checked_edit, checked_size
from detex_generator.api.violations import Violations
from detex_generator.request.generation_request import ALL_STEPS, GenerationRequest, Priority
from detex_generator.settings import GeneratorSettings
from detex_protos.v1 import generator_pb2

MAX_GUIDANCE_SCALE = 50.0
SIZE_MULTIPLE = 8
_SEEDS = 2**32  # what tells two pictures apart: the CPU generator of torch takes 32 bits

SOLVERS = {
    generator_pb2.SOLVER_DDIM: Solver.DDIM,
    generator_pb2.SOLVER_EULER: Solver.EULER,
    generator_pb2.SOLVER_DPM_SOLVER_PP_2M: Solver.DPM_SOLVER_PP_2M,
    generator_pb2.SOLVER_EULER_ANCESTRAL: Solver.EULER_ANCESTRAL,
    generator_pb2.SOLVER_LCM: Solver.LCM,
    generator_pb2.SOLVER_TCD: Solver.TCD,
}

PRIORITIES = {
    generator_pb2.PRIORITY_UNSPECIFIED: Priority.NORMAL,
    generator_pb2.PRIORITY_LOW: Priority.LOW,
    generator_pb2.PRIORITY_NORMAL: Priority.NORMAL,
    generator_pb2.PRIORITY_HIGH: Priority.HIGH,
}


def checked_request(
    message: generator_pb2.GenerateRequest,
    base_model: BaseModelSettings,
    *,
    width: int,
    height: int,
    settings: GeneratorSettings,
    usual_solver: Solver = Solver.DPM_SOLVER_PP_2M,
) -> GenerationRequest:
    """A request with its defaults filled in.

    What needs the object store or the tokenizer (whether a concept exists and fits, how many tokens a prompt has) is
    checked by the admission.

    Args:
        message: As it came.
        base_model: The base model that the request names.
        width: Width in pixels that the base model was trained at.
        height: Height in pixels that the base model was trained at.
        settings: Limits of this generator.
        usual_solver: Taken where the request names none and the base model's settings neither.

    Raises:
        InvalidInputError: With one violation for each thing that is wrong.
    """
    violations = Violations()
    parsed_prompt = violations.prompt(message.prompt, "prompt")
    if not message.prompt.strip():
        violations.add("prompt", repr(message.prompt), "a prompt of 1 to 10,000 characters, not all blank")
    parsed_negative_prompt = violations.prompt(message.negative_prompt, "negative_prompt")

    count = message.count or 1
    violations.whole("count", count, 1, settings.max_images_per_request)
    seed = message.seed if message.HasField("seed") else secrets.randbelow(_SEEDS - count)
    if seed + count > _SEEDS:
        violations.add("seed", seed, f"0 to 2^32 - {count} (image i takes seed + i)")
    steps = message.steps if message.HasField("steps") else min(base_model.default_steps, settings.max_steps)
    violations.whole("steps", steps, 1, settings.max_steps)
    guidance_scale = message.guidance_scale if message.HasField("guidance_scale") else base_model.default_guidance_scale
    if not (math.isfinite(guidance_scale) and 0 <= guidance_scale <= MAX_GUIDANCE_SCALE):
        violations.add("guidance_scale", guidance_scale, f"a number from 0 to {MAX_GUIDANCE_SCALE:g}")
    interval = _checked_guidance_interval(message, violations)
    usual_solver = Solver(base_model.default_solver) if base_model.default_solver else usual_solver
    solver = SOLVERS.get(message.solver) if message.solver else usual_solver
    if solver is None:
        accepted = ", ".join(generator_pb2.Solver.keys())
        violations.add("solver", int(message.solver), f"one of {accepted}")
    priority = PRIORITIES.get(message.priority)
    if priority is None:
        accepted = ", ".join(generator_pb2.Priority.keys())
        violations.add("priority", int(message.priority), f"one of {accepted}")

    edit = checked_edit(message, steps, violations)
    width, height = checked_size(message, edit, (width, height), SIZE_MULTIPLE, settings.max_image_pixels, violations)
    for field, given in (("width", width), ("height", height)):
        if given % SIZE_MULTIPLE:
            violations.add(field, given, f"a multiple of {SIZE_MULTIPLE}")
    if width * height > settings.max_image_pixels:
        violations.add(
            "width", f"{width} with height {height}", f"at most {settings.max_image_pixels:,} pixels in an image"
        )
    # An interval longer than the request is no error: it asks for a preview that never comes due.
    composition = checked_composition(message, parsed_prompt, violations)
    regional = () if composition is None else tuple(region.prompt for region in composition.regions)
    violations.found.extend(_version_violations(message, parsed_prompt, parsed_negative_prompt, *regional))

    if violations.found or solver is None or priority is None:
        raise InvalidInputError(*violations.found)
    request = GenerationRequest(
        prompt=message.prompt,
        negative_prompt=message.negative_prompt,
        parsed_prompt=parsed_prompt,
        parsed_negative_prompt=parsed_negative_prompt,
        base_model=base_model.name,
        count=count,
        seed=seed,
        steps=steps,
        guidance_scale=guidance_scale,
        solver=solver,
        width=width,
        height=height,
        preview_interval_steps=message.preview_interval_steps,
        concept_versions=dict(message.concept_versions),
        priority=priority,
        composition=composition,
        edit=edit,
        guidance_interval=interval,
    )
    if len(request.concepts()) > settings.max_concepts_per_request:
        raise invalid_input(
            "prompt",
            len(request.concepts()),
            f"at most {settings.max_concepts_per_request} concepts, with the negative prompt's",
        )
    return request


def _checked_guidance_interval(message: generator_pb2.GenerateRequest, violations: Violations) -> tuple[float, float]:
    """Start and end; all steps where something is wrong with them."""
    if not message.HasField("guidance_interval"):
        return ALL_STEPS
    interval, before = message.guidance_interval, len(violations.found)
    end = interval.end if interval.HasField("end") else 1.0
    violations.share("guidance_interval.start", interval.start, zero=True)
    violations.share("guidance_interval.end", end, zero=False)
    if len(violations.found) == before and end <= interval.start:
        accepted = f"above guidance_interval.start ({interval.start:g}) and at most 1"
        violations.add("guidance_interval.end", end, accepted)
    return ALL_STEPS if len(violations.found) > before else (interval.start, end)


_VERSION = "a published version such as 20260131T120000Z-0123abcd, or empty for the newest"


def _version_violations(message: generator_pb2.GenerateRequest, *prompts: Prompt) -> Iterator[Violation]:
    named = {name for prompt in prompts for name in prompt.concepts()}
    for name, version in message.concept_versions.items():
        field = f"concept_versions.{shown_text(name)[1:-1] if not name.isprintable() else name[:63]}"
        if name not in named:
            accepted = f"a concept of a prompt ({', '.join(sorted(named)) or 'there is none'})"
            yield from invalid_input(field, "one that no prompt names", accepted).violations
        elif version and not CONCEPT_VERSION.fullmatch(version):
            yield from invalid_input(field, repr(version), _VERSION).violations
