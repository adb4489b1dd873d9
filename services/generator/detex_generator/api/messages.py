"""From what the engine tells to messages of the wire contract."""

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from detex_diffusion.solver import Solver
from detex_generator.base_models import ServedBaseModel
from detex_generator.cache.concept_cache import ResidentConcept
from detex_generator.engine import Event, FinishedImage, Preview, Progress, Queued
from detex_generator.request.provenance import EditProvenance, Provenance, RegionProvenance
from detex_protos.v1 import common_pb2, generator_pb2

_SOLVERS = {
    Solver.DDIM: generator_pb2.SOLVER_DDIM,
    Solver.EULER: generator_pb2.SOLVER_EULER,
    Solver.DPM_SOLVER_PP_2M: generator_pb2.SOLVER_DPM_SOLVER_PP_2M,
    Solver.EULER_ANCESTRAL: generator_pb2.SOLVER_EULER_ANCESTRAL,
    Solver.LCM: generator_pb2.SOLVER_LCM,
    Solver.TCD: generator_pb2.SOLVER_TCD,
}
_REGION_MODES = {
    "": generator_pb2.REGION_MODE_UNSPECIFIED,
    "blend": generator_pb2.REGION_MODE_BLEND,
    "joint": generator_pb2.REGION_MODE_JOINT,
}
_EDIT_KINDS = {
    "image_to_image": generator_pb2.EDIT_KIND_IMAGE_TO_IMAGE,
    "inpaint": generator_pb2.EDIT_KIND_INPAINT,
    "keep_product": generator_pb2.EDIT_KIND_KEEP_PRODUCT,
}


def event_message(event: Event) -> generator_pb2.GenerateResponse:
    """An event of a request."""
    match event:
        case Queued(request_id, queue_position):
            queued = generator_pb2.Queued(request_id=request_id, queue_position=queue_position)
            return generator_pb2.GenerateResponse(queued=queued)
        case Progress(image_index, step, total_steps):
            progress = generator_pb2.Progress(image_index=image_index, step=step, total_steps=total_steps)
            return generator_pb2.GenerateResponse(progress=progress)
        case Preview(image_index, step, png):
            preview = generator_pb2.Preview(image_index=image_index, step=step, png=png)
            return generator_pb2.GenerateResponse(preview=preview)
        case FinishedImage(image_index, png, provenance):
            image = generator_pb2.GeneratedImage(
                image_index=image_index, png=png, seed=provenance.seed, provenance=provenance_message(provenance)
            )
            return generator_pb2.GenerateResponse(image=image)


def provenance_message(provenance: Provenance) -> generator_pb2.Provenance:
    """Where an image comes from."""
    composition, interval = provenance.composition, None
    if provenance.guidance_interval is not None:
        start, end = provenance.guidance_interval
        interval = generator_pb2.GuidanceInterval(start=start, end=end)
    return generator_pb2.Provenance(
        prompt=provenance.prompt,
        negative_prompt=provenance.negative_prompt,
        base_model=provenance.base_model,
        base_model_fingerprint=provenance.base_model_fingerprint,
        concepts=[
            generator_pb2.ConceptProvenance(
                reference=common_pb2.ConceptReference(name=concept.name, version=concept.version),
                manifest_sha256=concept.manifest_sha256,
            )
            for concept in provenance.concepts
        ],
        seed=provenance.seed,
        steps=provenance.steps,
        guidance_scale=provenance.guidance_scale,
        solver=_SOLVERS[Solver(provenance.solver)],
        width=provenance.width,
        height=provenance.height,
        generator_version=provenance.generator_version,
        guidance_interval=interval,
        regions=[] if composition is None else map(_region_message, composition.regions),
        region_mode=_REGION_MODES["" if composition is None else composition.mode],
        edit=None if provenance.edit is None else _edit_message(provenance.edit),
    )


def _region_message(region: RegionProvenance) -> generator_pb2.RegionProvenance:
    box = None
    if region.box is not None:
        left, top, right, bottom = region.box
        box = generator_pb2.Box(left=left, top=top, right=right, bottom=bottom)
    return generator_pb2.RegionProvenance(
        concept=region.concept, box=box, mask_sha256=region.mask_sha256, weight=region.weight, prompt=region.prompt
    )


def _edit_message(edit: EditProvenance) -> generator_pb2.EditProvenance:
    return generator_pb2.EditProvenance(
        kind=_EDIT_KINDS[edit.kind],
        image_sha256=edit.image_sha256,
        mask_sha256=edit.mask_sha256,
        strength=edit.strength,
        shadow=edit.shadow,
    )


def base_model_message(served: ServedBaseModel) -> common_pb2.BaseModel:
    """A base model that is served."""
    return common_pb2.BaseModel(
        name=served.settings.name,
        fingerprint=served.model.fingerprint,
        width=served.model.width,
        height=served.model.height,
        prediction_type=served.model.noise_schedule.prediction_type.value,
        is_default=served.is_default,
    )


def resident_message(resident: ResidentConcept) -> generator_pb2.ResidentConcept:
    """A concept in memory."""
    return generator_pb2.ResidentConcept(
        reference=common_pb2.ConceptReference(name=resident.key.name, version=resident.key.version),
        base_model=resident.key.base_model,
        size_bytes=resident.size_bytes,
        idle_time=_duration(resident.idle_seconds),
        pinned=resident.pinned,
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
