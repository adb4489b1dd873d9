"""Places of subjects and photos to edit, as the wire contract has them, checked."""

import math

from detex_core.clauses import prompt_of_subject
from detex_core.errors import InvalidInputError
from detex_core.images import read_size
from detex_core.prompt import Prompt, SubjectWord
from detex_diffusion.editing import drawing_size
from detex_diffusion.regions import Box, RegionMode
from detex_generator.api.violations import Violations
from detex_generator.request.picture_content import Composition, Edit, EditKind, Region
from detex_protos.v1 import generator_pb2

MAX_REGIONS = 8
MAX_REGION_WEIGHT = 10.0
MAX_FILES_BYTES = 32 * 1024**2
"""Photo and masks of one request together: they wait in the queue as they came."""

MAX_KEPT_PIXELS = 16 * 1024**2
"""Pixels of a photo of which a part is kept: the picture has its size, and must fit into a message as a PNG."""

SHAPE_TOLERANCE = 0.1
"""How far the shape of a drawing may be from that of a photo of which a part is kept."""

REGION_MODES = {
    generator_pb2.REGION_MODE_UNSPECIFIED: RegionMode.BLEND,
    generator_pb2.REGION_MODE_BLEND: RegionMode.BLEND,
    generator_pb2.REGION_MODE_JOINT: RegionMode.JOINT,
}
EDIT_KINDS = {
    generator_pb2.EDIT_KIND_IMAGE_TO_IMAGE: EditKind.IMAGE_TO_IMAGE,
    generator_pb2.EDIT_KIND_INPAINT: EditKind.INPAINT,
    generator_pb2.EDIT_KIND_KEEP_PRODUCT: EditKind.KEEP_PRODUCT,
}
_DEFAULT_STRENGTH = {EditKind.IMAGE_TO_IMAGE: 0.8, EditKind.INPAINT: 1.0, EditKind.KEEP_PRODUCT: 1.0}


def checked_composition(
    message: generator_pb2.GenerateRequest, prompt: Prompt, violations: Violations
) -> Composition | None:
    """The places of subjects; None where there are none, or where something is wrong with them.

    Args:
        message: As it came.
        prompt: Its prompt taken apart.
        violations: Receives what is wrong.
    """
    mode = REGION_MODES.get(message.region_mode)
    if mode is None:
        accepted = f"one of {', '.join(generator_pb2.RegionMode.keys())}"
        violations.add("region_mode", int(message.region_mode), accepted)
    if not message.regions:
        return None
    if len(message.regions) > MAX_REGIONS:
        violations.add("regions", len(message.regions), f"at most {MAX_REGIONS} regions")
        return None
    total = sum(len(region.mask) for region in message.regions)
    if total > MAX_FILES_BYTES:
        violations.add("regions", f"{total:,}", f"at most {MAX_FILES_BYTES:,} bytes of masks")
        return None
    before = len(violations.found)
    subjects = {part.concept for part in prompt.parts if isinstance(part, SubjectWord)}
    placed: set[str] = set()
    regions = []
    for index, region in enumerate(message.regions):
        field = f"regions[{index}]"
        _check_concept(region, field, subjects - placed, mode, violations)
        placed.add(region.concept)
        place = _place(region, field, violations)
        weight = region.weight if region.HasField("weight") else 1.0
        violations.share(f"{field}.weight", weight, MAX_REGION_WEIGHT, zero=False)
        text = Prompt(())
        if mode is RegionMode.JOINT and region.prompt:
            violations.add(f"{field}.prompt", repr(region.prompt), "empty with REGION_MODE_JOINT, which has one prompt")
        elif region.prompt:
            text = violations.prompt(region.prompt, f"{field}.prompt")
        elif mode is RegionMode.BLEND:
            text = prompt_of_subject(prompt, region.concept)
        regions.append(Region(region.concept, place, weight, text))
    if mode is None or len(violations.found) > before:
        return None
    return Composition(tuple(regions), mode)


def checked_edit(message: generator_pb2.GenerateRequest, steps: int, violations: Violations) -> Edit | None:
    """The photo to edit; None where there is none, or where something is wrong with it.

    Args:
        message: As it came.
        steps: Denoising steps of the request.
        violations: Receives what is wrong.
    """
    if not message.HasField("edit"):
        return None
    edit, before = message.edit, len(violations.found)
    kind = EDIT_KINDS.get(edit.kind)
    if kind is None:
        names = [name for name, number in generator_pb2.EditKind.items() if number in EDIT_KINDS]
        violations.add("edit.kind", int(edit.kind), f"one of {', '.join(names)}")
        kind = EditKind.IMAGE_TO_IMAGE
    size = _size(edit.image, "edit.image", violations)
    if size is not None and kind is not EditKind.IMAGE_TO_IMAGE and size[0] * size[1] > MAX_KEPT_PIXELS:
        accepted = f"at most {MAX_KEPT_PIXELS:,} pixels where a part of the photo is kept"
        violations.add("edit.image", _written(size), accepted)
    total = len(edit.image) + len(edit.mask) + sum(len(region.mask) for region in message.regions)
    if total > MAX_FILES_BYTES:
        violations.add("edit", f"{total:,}", f"at most {MAX_FILES_BYTES:,} bytes including all masks")
    if edit.mask and kind is EditKind.IMAGE_TO_IMAGE:
        violations.add(
            "edit.mask",
            f"a mask with {generator_pb2.EditKind.Name(edit.kind)}",
            "empty but for EDIT_KIND_INPAINT and EDIT_KIND_KEEP_PRODUCT",
        )
    elif edit.mask:
        mask_size = _size(edit.mask, "edit.mask", violations)
        if size is not None and mask_size is not None and size != mask_size:
            violations.add("edit.mask", _written(mask_size), f"the size of the photo, {_written(size)}")
    elif kind is EditKind.INPAINT:
        violations.add("edit.mask", "no mask", "a mask that is white where the photo is to be redrawn")
    strength = edit.strength if edit.HasField("strength") else _DEFAULT_STRENGTH[kind]
    violations.share("edit.strength", strength, zero=False)
    violations.share("edit.shadow", edit.shadow, zero=True)
    if edit.shadow and kind is not EditKind.KEEP_PRODUCT:
        violations.add("edit.shadow", edit.shadow, "0 except for EDIT_KIND_KEEP_PRODUCT")
    if len(violations.found) > before:
        return None
    checked = Edit(kind, edit.image, edit.mask, strength, edit.shadow)
    if steps > 0 and checked.first_step(steps) == steps:
        violations.add("edit.strength", strength, f"at least {1 / steps:.3g} (one step of {steps})")
    return checked


def checked_size(
    message: generator_pb2.GenerateRequest,
    edit: Edit | None,
    made_for: tuple[int, int],
    multiple: int,
    max_pixels: int,
    violations: Violations,
) -> tuple[int, int]:
    """Width and height in which to draw; those that were asked for are not yet checked against limits.

    Args:
        message: As it came.
        edit: The photo to edit, if any.
        made_for: Width and height of the base model.
        multiple: What widths and heights are multiples of.
        max_pixels: Of an image; a size that is chosen here keeps to it.
        violations: Receives a shape that is not the photo's.
    """
    width, height = message.width or made_for[0], message.height or made_for[1]
    if edit is None:
        return width, height
    photo = read_size(edit.image, field="edit.image")
    if not message.width and not message.height:
        return drawing_size(photo, min(made_for[0] * made_for[1], max_pixels), multiple)
    stretch = (width / height) / (photo[0] / photo[1])
    if edit.keeps and abs(math.log(stretch)) > math.log1p(SHAPE_TOLERANCE):
        violations.add(
            "width",
            f"{width} with height {height}",
            f"of the photo's aspect ratio ({_written(photo)}) within {SHAPE_TOLERANCE:.0%}, or 0 like height",
        )
    return width, height


def _check_concept(
    region: generator_pb2.Region, field: str, free: set[str], mode: RegionMode | None, violations: Violations
) -> None:
    if not region.concept:
        if mode is RegionMode.JOINT or not region.prompt.strip():
            violations.add(
                f"{field}.concept", "no concept", "a concept; with REGION_MODE_BLEND a prompt will do instead"
            )
    elif region.concept not in free:
        left = f"({', '.join(sorted(free))})" if free else "(none is left)"
        violations.add(f"{field}.concept", repr(region.concept), f"a subject of the prompt without a region {left}")


def _place(region: generator_pb2.Region, field: str, violations: Violations) -> Box | bytes:
    match region.WhichOneof("place"):
        case "box":
            box = Box(region.box.left, region.box.top, region.box.right, region.box.bottom)
            for low, high, sides in (
                (box.left, box.right, ("left", "right")),
                (box.top, box.bottom, ("top", "bottom")),
            ):
                if not 0 <= low < high <= 1:
                    given = f"{sides[0]} {low:g} with {sides[1]} {high:g}"
                    violations.add(
                        f"{field}.box", given, f"0 <= {sides[0]} < {sides[1]} <= 1, as fractions of the side"
                    )
            return box
        case "mask":
            _size(region.mask, f"{field}.mask", violations)
            return region.mask
        case _:
            violations.add(f"{field}.box", "neither", "a box or a mask")
            return b""


def _size(data: bytes, field: str, violations: Violations) -> tuple[int, int] | None:
    try:
        return read_size(data, field=field)
    except InvalidInputError as error:
        violations.found.extend(error.violations)
        return None


def _written(size: tuple[int, int]) -> str:
    return f"{size[0]:,} x {size[1]:,} pixels"
