"""What the comments of the protos promise is what the code does: numbers and settings.

A client is written from the protos alone. So every number in them has its constant or setting here: a constant that is
changed without its comment fails, and so does a number in a comment that nothing here stands for.
"""

import datetime
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from detex_core import channel, images, memory_budget
from detex_core.artifact import archive
from detex_core.errors import InvalidInputError
from detex_core.grpc_server import interceptor, message_outline
from detex_core.prompt import ATTRIBUTE_NAMES, CONCEPT_NAMES, MAX_PROMPT_CHARACTERS, parse_prompt
from detex_core.settings import BaseModelSettings, ServiceSettings
from detex_core.tenancy import TENANT_NAMES
from detex_diffusion.solver import DISTILLED_STEPS
from detex_generator.api import content_validation, request_stream, validation
from detex_generator.engine import failures
from detex_generator.engine.scheduling import class_turns, pace, scheduler
from detex_generator.request.generation_request import Priority
from detex_generator.request.picture_content import EditKind
from detex_generator.settings import GeneratorSettings
from detex_trainer.api import change_wait, decoding_turns
from detex_trainer.api.submission import MAX_PRIORITY
from detex_trainer.domain import training_set_record as record
from detex_trainer.domain.attributes import DEFAULT_ATTRIBUTES, MAX_ATTRIBUTES
from detex_trainer.domain.hyperparameters import Hyperparameters, resolve_hyperparameters
from detex_trainer.intake import curation, intake, spool, upload, upload_parts, upload_places
from detex_trainer.jobs import page_token, repository, retention, training_set_changes
from detex_trainer.settings import TrainerSettings
from tests.repository.contract_comments import contract_comments

ROOT = Path(__file__).resolve().parents[2]
_SETTINGS = (ServiceSettings, TrainerSettings, GeneratorSettings)
_CLIP_TOKENS = 77
"""Positions of the text encoders of Stable Diffusion (Radford et al., 2021), start and end of the text among them."""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def size(bytes_: float) -> str:
    """Bytes as people write them."""
    for unit, name in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if bytes_ >= unit and bytes_ % unit == 0:
            return f"{bytes_ // unit:g} {name}"
    return f"{bytes_:,} bytes"


def seconds(duration: float) -> str:
    """A duration as people write it."""
    for unit, name in ((86_400, "day"), (3_600, "hour"), (1, "second")):
        if duration >= 1 and duration % unit == 0 and not (unit == 3_600 and duration > 86_400):
            count = duration / unit
            return f"{count:,g} {name}{'' if count == 1 else 's'}"
    return f"{duration:g} seconds"


def default(settings: type[ServiceSettings], name: str, form: str = "{}", *, zero: str = "no limit") -> str:
    """What a comment says of a setting: its default, in the place of `{}`, and how the setting is called."""
    value = settings.model_fields[name].default
    write = size if name.endswith("_bytes") else seconds if name.endswith("_seconds") else _number
    written = form.format(write(value)) if value else zero
    return f"{written} by default (DETEX_{name.upper()}"


def largest(settings: type[Any], name: str) -> Any:
    """The largest value that a setting may have."""
    return _bounds(settings.model_fields[name])[1]


def _bounds(field: FieldInfo) -> tuple[Any, Any, bool]:
    """Least and largest value, and whether the least itself is left out."""
    low = high = None
    excluded = False
    for rule in field.metadata:
        match rule:
            case Ge(ge):
                low = ge
            case Gt(gt):
                low, excluded = gt, True
            case Le(le):
                high = le
            case Lt(lt):
                high = lt - 1  # type: ignore[operator]
    return low, high, excluded


def ranges() -> Mapping[str, list[str]]:
    """What is said of the knobs of a training job, by the bounds that they are checked against."""
    said = {}
    for name, field in Hyperparameters.model_fields.items():
        low, high, excluded = _bounds(field)
        if high is None:
            continue
        shown = "2^32 - 1" if high == 2**32 - 1 else f"{high:,g}"
        said[f"Hyperparameters.{name}"] = [f"above {low:g} and at most {shown}" if excluded else f"{low:g} to {shown}"]
    # 0 stands for something else in these.
    said["Hyperparameters.preview_interval_steps"] = [f"1 to {largest(Hyperparameters, 'preview_interval_steps'):,}"]
    said["Hyperparameters.resolution"] = [
        f"{_least_resolution()} to {largest(Hyperparameters, 'resolution'):,}",
        "a multiple of 8",
    ]
    said["Hyperparameters.attention_map_side"].append("at least 8")
    return said


def _shared_memory() -> str:
    """The bounds of what callers' messages share, on machines of hardly any memory and of very much."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_budget, "memory_bytes", lambda: 0)
        least = memory_budget.usual_budget_bytes()
        patch.setattr(memory_budget, "memory_bytes", lambda: 2**50)
        return f"{size(least)} at least and {size(memory_budget.usual_budget_bytes())} at most"


def _kept_places() -> list[str]:
    """Shares of a queue that are kept for others, as a queue of 160 places keeps them."""
    queue = scheduler.Scheduler(slots=1, capacity=160, lookahead=1)
    queue._waiting_images = queue._tenant_images["busy"] = 1
    low, normal = (160 - queue._open_places("new", each, 1) for each in (Priority.LOW, Priority.NORMAL))
    tenants = 160 - queue._open_places("busy", Priority.HIGH, 160)
    return [f"1/{160 // tenants} is kept", f"1/{160 // low} is closed", f"1/{160 // normal} to all"]


def _largest_photo_index() -> int:
    """The largest index that a prompt may name, of as many nines as it takes."""
    nines = 9
    while True:
        try:
            parse_prompt(f"[mug:pose:{nines}9]")
        except InvalidInputError:
            return nines
        nines = 10 * nines + 9


def _least_resolution() -> int:
    """The smallest resolution that a job may have, of all multiples of 8."""
    for side in range(8, 2048, 8):
        try:
            resolve_hyperparameters("detex", {"resolution": side})
        except InvalidInputError:
            continue
        return side
    raise AssertionError("no resolution is accepted")


def _longest_name_of_base_models() -> int:
    pattern = next(rule.pattern for rule in BaseModelSettings.model_fields["name"].metadata if hasattr(rule, "pattern"))
    return next(length for length in range(1, 1_000) if not re.fullmatch(pattern, "a" * (length + 1)))


def _tokens_of_the_embedded() -> int:
    config = ROOT / "shared" / "detex_showroom" / "base_model" / "tokenizer" / "tokenizer_config.json"
    return int(json.loads(config.read_text())["model_max_length"]) - 2


_MEGABYTE_FILES = size(content_validation.MAX_FILES_BYTES)
_PAGES = [f"1 to {page_token.MAX_PAGE_SIZE:,}; 0 means {page_token.DEFAULT_PAGE_SIZE}"]
_MANY_PIXELS = f"{content_validation.MAX_KEPT_PIXELS:,}"
_TENANT_BYTES = default(TrainerSettings, "max_training_set_bytes_per_tenant")

CLAIMS: Mapping[str, list[str]] = {
    "common.proto": [
        TENANT_NAMES.accepted,
        default(GeneratorSettings, "max_waiting_images"),
        f"at most {size(channel.MAX_REQUEST_BYTES)}",
        default(ServiceSettings, "max_message_bytes"),
        "most take 4 MiB",  # of gRPC itself
        f"above {size(message_outline.SMALL_MESSAGE_BYTES)} may have {message_outline.MAX_FIELDS:,} fields",
        f"{message_outline.MAX_PACKED_BYTES:,} bytes in one packed field",
        f"from {size(memory_budget.LARGE_MESSAGE_BYTES)} on",
        _shared_memory(),
        f"each counts {interceptor._COPIES} times",
        f"{memory_budget.MESSAGE_SHARE:.0%} of it",
        f"retried after {seconds(memory_budget.RETRY_SECONDS)}",
        default(ServiceSettings, "max_calls_per_tenant", "{} calls"),
        f"by {images.BYTES_PER_PIXEL} bytes a pixel",
        default(ServiceSettings, "picture_wait_seconds"),
        f"at most {size(images.MAX_IMAGE_BYTES)}",
        f"sides of {images.MIN_IMAGE_SIDE} to {images.MAX_IMAGE_SIDE:,} pixels",
        f"at most {images.MAX_IMAGE_PIXELS // 10**6} megapixels",
        "at most 8 KiB: gRPC",  # of gRPC itself, as is the next
        "8 KiB of metadata",
        f"every {seconds(channel.SHORTEST_PING_SECONDS)}",
    ],
    "ConceptReference.name": [CONCEPT_NAMES.accepted],
    "BaseModel.name": [f"1 to {_longest_name_of_base_models()} of A-Z, a-z, 0-9,"],
    "GeneratorService": [f"0 to {_largest_photo_index():,}", "the pose word of photo 2"],
    "GeneratorService.Generate": [
        default(GeneratorSettings, "max_waiting_images"),
        f"{scheduler._SHORTEST_RETRY_SECONDS:g} to {seconds(scheduler._LONGEST_RETRY_SECONDS)}",
        default(GeneratorSettings, "max_waiting_images_per_tenant"),
        f"a queue of {scheduler._SMALL_QUEUE} places or more",
        *_kept_places(),
        f"RetryInfo of {seconds(failures.OutOfMemoryError(0).retry_delay_seconds or 0)}",
        f"within the last {seconds(pace._VALID_SECONDS)}",
    ],
    "GeneratorService.GenerateMany": [
        default(GeneratorSettings, "max_requests_in_flight_per_stream", "{} requests"),
        default(GeneratorSettings, "max_requests_per_stream", "{} requests"),
    ],
    "GeneratorService.PrefetchConcept": [default(GeneratorSettings, "concept_cache_bytes")],
    "Solver.SOLVER_LCM": [f"at most {DISTILLED_STEPS} steps"],
    "Solver.SOLVER_TCD": [f"at most {DISTILLED_STEPS} steps"],
    "Priority.PRIORITY_LOW": [f"at least 1 turn in {class_turns._TURNS_PASSED_OVER + len(Priority)}"],
    "Priority.PRIORITY_HIGH": [
        default(GeneratorSettings, "slots", "{} slots"),
    ],
    "GenerateRequest": [f"at most {_MEGABYTE_FILES} together"],
    "GenerateRequest.prompt": [
        f"1 to {MAX_PROMPT_CHARACTERS:,} characters",
        f"{_CLIP_TOKENS - 2} for Stable Diffusion",
        f"{_tokens_of_the_embedded()} for the embedded",
        default(GeneratorSettings, "max_concepts_per_request", "at most {} concepts"),
    ],
    "GenerateRequest.count": [
        default(GeneratorSettings, "max_images_per_request", "1 to {}") + ", which cannot be more)",
    ],
    "GenerateRequest.seed": [f"0 to 2^{validation._SEEDS.bit_length() - 1} - count"],
    "GenerateRequest.steps": [
        default(GeneratorSettings, "max_steps", "1 to {}") + ", which cannot be more)",
        f"default of the base model, {BaseModelSettings.model_fields['default_steps'].default}",
    ],
    "GenerateRequest.guidance_scale": [
        f"0 to {validation.MAX_GUIDANCE_SCALE:g}",
        f"default of the base model, {BaseModelSettings.model_fields['default_guidance_scale'].default:g}",
    ],
    "GenerateRequest.width": [
        f"a multiple of {validation.SIZE_MULTIPLE}",
        default(GeneratorSettings, "max_image_pixels"),
    ],
    "GenerateRequest.regions": [f"at most {content_validation.MAX_REGIONS}"],
    "Region.mask": [f"at most {_MEGABYTE_FILES} together"],
    "Region.weight": [f"above 0 and at most {content_validation.MAX_REGION_WEIGHT:g}"],
    "Edit": [f"within {content_validation.SHAPE_TOLERANCE:.0%}", f"at most {_MEGABYTE_FILES} together"],
    "Edit.image": [f"At most {_MANY_PIXELS} pixels"],
    "Edit.strength": [f"takes {content_validation._DEFAULT_STRENGTH[EditKind.IMAGE_TO_IMAGE]:g} for"],
    "GenerateManyRequest.key": [f"1 to {request_stream.MAX_KEY_CHARACTERS} characters"],
    "RequestError.code": [f"{grpc.StatusCode.INVALID_ARGUMENT.value[0]} for INVALID_ARGUMENT"],
    "TrainerService.UploadTrainingSet": [
        f"up to {seconds(intake._SEGMENTATION_SECONDS_PER_PHOTO)} a photo",
        default(TrainerSettings, "max_uploads"),
        default(TrainerSettings, "max_uploads_per_tenant", zero="half of them"),
        f"RetryInfo of {seconds(upload_places._RETRY_SECONDS)}: `TOO_MANY_UPLOADS_OF_TENANT`, or `TOO_MANY_UPLOADS`",
        f"`UPLOAD_SLOW`, with RetryInfo of {seconds(upload_places._RETRY_SECONDS)}",
        f"after its first {seconds(upload_places._GRACE_SECONDS)}",
        default(TrainerSettings, "upload_slow_bytes_per_second", "{} bytes a second"),
        f"`UPLOAD_IDLE`, with RetryInfo of {seconds(intake._IDLE_RETRY_SECONDS)}",
        default(TrainerSettings, "upload_idle_seconds"),
        f"`UPLOAD_INCOMPLETE`, with RetryInfo of {seconds(upload.INCOMPLETE_RETRY_SECONDS)}",
        f"`UPLOAD_RUNNING`, with RetryInfo of {seconds(spool._BUSY_RETRY_SECONDS)}",
        _TENANT_BYTES,
        f"`SEGMENTER_BUSY`, with RetryInfo of {seconds(memory_budget.RETRY_SECONDS)}",
        f"within {seconds(intake._SEGMENTER_WAIT_SECONDS)}",
        f"kept for {seconds(spool._ABANDONED_SECONDS)}",
        f"the {spool._MAX_BROKEN_UPLOADS_PER_TENANT} latest uploads",
    ],
    "TrainerService.GetMask": [
        f"{decoding_turns.THREADS_PER_TENANT} run at a time",
        f"{decoding_turns.WAITING_PER_TENANT} run or wait",
        f"RetryInfo of {seconds(decoding_turns._RETRY_SECONDS)}",
    ],
    "TrainerService.ReplaceMask": [
        f"more than {seconds(change_wait._LONGEST_SECONDS)}",
        f"RetryInfo of {seconds(training_set_changes.CHANGING_RETRY_SECONDS)}",
    ],
    "TrainerService.SubmitJob": [
        default(TrainerSettings, "max_job_megapixels", "{} megapixels"),
        f"RetryInfo of {repository.JobRepository.submit.__kwdefaults__['retry_delay_seconds']} seconds",
        default(TrainerSettings, "max_queued_jobs_per_tenant"),
        default(TrainerSettings, "max_running_jobs_per_tenant"),
    ],
    "TrainerService.GetJob": [
        default(TrainerSettings, "ended_job_seconds"),
        default(TrainerSettings, "max_ended_jobs_per_tenant"),
        f"not before {seconds(retention._LEAST_SECONDS)} after",
    ],
    "TrainerService.ListJobs": [f"at most {page_token.MAX_PAGE_SIZE:,}"],
    "TrainerService.WatchJob": [default(TrainerSettings, "watch_interval_seconds")],
    "TrainerService.ListConcepts": [f"at most {archive.MAX_PAGE_SIZE:,}"],
    "UploadTrainingSetRequest.chunk": [f"1 byte to {size(upload_parts.MAX_CHUNK_BYTES)}"],
    "TrainingSetHeader": [
        default(TrainerSettings, "max_photos", "1 to {} photos") + ", which cannot be more)",
        default(TrainerSettings, "max_training_set_bytes", "{} together"),
        "needs 2 photos or more; 3 to 5 in",
    ],
    "TrainingSetHeader.class_word": [f"1 to {record.MAX_CLASS_WORD_CHARACTERS} letters and digits"],
    "TrainingSetHeader.keep_photos": [default(TrainerSettings, "unused_training_set_seconds")],
    "TrainingSetHeader.upload_id": [spool._UPLOAD_IDS.accepted],
    "TrainingSetHeader.file_count": [f"1 to {2 * TrainerSettings.model_fields['max_photos'].default} by default"],
    "FileHeader.photo_index": [f"0 to {record.MAX_PHOTOS - 1} by default (DETEX_MAX_PHOTOS)"],
    "FileHeader.file_name": [f"at most {record.MAX_FILE_NAME_CHARACTERS} characters"],
    "FileHeader.size_bytes": [
        f"1 byte to {default(TrainerSettings, 'max_file_bytes')}",
        f"cannot be more than {size(largest(TrainerSettings, 'max_file_bytes'))}",
    ],
    "FileHeader.sha256": [f"{2 * hashlib.sha256().digest_size} hexadecimal digits"],
    "FileHeader.caption": [
        f"At most {record.MAX_CAPTION_CHARACTERS:,} characters",
        f"{_CLIP_TOKENS - 2} in all for Stable Diffusion",
        f"{_tokens_of_the_embedded()} for the embedded",
    ],
    "GetUploadRequest.upload_id": [spool._UPLOAD_IDS.accepted],
    "GetMaskResponse.preview_png": [f"at most {curation._PREVIEW_SIDE} pixels a side"],
    "ReplaceMaskRequest.mask": [default(TrainerSettings, "max_file_bytes")],
    "SubmitJobRequest.concept_name": [CONCEPT_NAMES.accepted],
    "SubmitJobRequest.attributes": [
        f"0 to {MAX_ATTRIBUTES} words",
        " and ".join(f"`{name}`" for name in DEFAULT_ATTRIBUTES),
        ATTRIBUTE_NAMES.accepted.replace("_ and -", "underscores and hyphens"),
    ],
    "SubmitJobRequest.idempotency_key": [f"1 to {repository.MAX_IDEMPOTENCY_KEY_CHARACTERS} characters"],
    "SubmitJobRequest.priority": [f"-{MAX_PRIORITY} to {MAX_PRIORITY}"],
    "SubmitJobRequest.deadline_time": [
        f"the years {datetime.MINYEAR} to {datetime.MAXYEAR}",
        default(TrainerSettings, "max_job_seconds"),
    ],
    "Job.attempts": [default(TrainerSettings, "max_attempts")],
    "ListJobsRequest.page_size": _PAGES,
    "ListConceptsRequest.page_size": [f"1 to {archive.MAX_PAGE_SIZE:,}; 0 means {archive.DEFAULT_PAGE_SIZE}"],
    **ranges(),
}

_FOR_OPERATORS = {"MAX_PACK_SIZE", "MAX_OUTAGES"}
"""Settings of services that callers do not meet."""

# What is no limit: code, names, papers, versions of Stable Diffusion, and 0 and 1, which stand for none and for all.
_NO_LIMIT = re.compile(
    r"`[^`]*`|\b(?:DETEX|SOLVER)_\w+|SHA-256|U\+0000|\([^()]*?, \d{4}[^()]*\)|\b[12]\.x|PP\+\+|Algorithm 1|\+\+\(2M\)"
    r"|(?<![\d,./^-])[01](?![\d,./^]\d|\d)"
)
_SETTING = re.compile(r"\bDETEX_([A-Z0-9_]+)")


@pytest.mark.parametrize("place", CLAIMS)
def test_a_comment_says_what_the_code_holds(place: str) -> None:
    comment = contract_comments()[place]
    for claim in CLAIMS[place]:
        assert claim in comment, f"{place}: the code says {claim!r}, the comment says: {comment}"


def test_no_number_stands_in_a_comment_for_which_no_code_does() -> None:
    unfounded = {}
    for place, comment in contract_comments().items():
        left = comment
        for claim in sorted(CLAIMS.get(place, []), key=len, reverse=True):
            left = left.replace(claim, " ")
        left = _NO_LIMIT.sub(" ", left)
        if re.search(r"\d", left):
            unfounded[place] = left
    assert not unfounded


def test_a_number_that_is_changed_on_one_side_is_noticed() -> None:
    """The search for numbers finds those of another text: otherwise a clean result would say little."""
    for number in ("65 pictures", "1 to 999", "3 seconds", "2.5 MiB", "10%", "1/3", "2^31", "12"):
        assert re.search(r"\d", _NO_LIMIT.sub(" ", f"At most {number} of it, 0 to 1, `code:2` (Lu et al., 2022).")), (
            number
        )


def test_settings_that_comments_name_are_there() -> None:
    known = {name for settings in _SETTINGS for name in settings.model_fields}
    named = {name for comment in contract_comments().values() for name in _SETTING.findall(comment)}
    assert len(named) > 25
    limits = {name.upper() for name in known if name.startswith("max_")}
    assert sorted(limits - named - _FOR_OPERATORS) == [], "a limit that callers can meet is said where they read it"
    assert sorted(name for name in named if name.lower() not in known) == []
