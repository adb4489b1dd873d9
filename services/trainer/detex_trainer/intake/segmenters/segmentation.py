"""Masks of photos in files, found in a child process: segmenters may be slow, large, or somebody else's."""

import logging
import subprocess
import sys
from pathlib import Path

from PIL import Image
from pydantic import BaseModel, ConfigDict, ValidationError

from detex_trainer.intake.masks import mask_to_image
from detex_trainer.intake.segmenters import SubjectNotFoundError, open_segmenter

_COMMAND = (sys.executable, "-m", "detex_trainer.intake.segmenters")

_LOGGED_CHARACTERS = 4_000

_log = logging.getLogger(__name__)


class SegmentationTask(BaseModel):
    """One photo.

    Attributes:
        photo: PNG, mode RGB.
        mask: Where the mask goes, as PNG, mode L, of the size of the photo.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    photo: Path
    mask: Path


class SegmentationRequest(BaseModel):
    """Photos and who looks for their subjects.

    Attributes:
        segmenter: As `open_segmenter` takes it.
        tasks: The photos.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    segmenter: str
    tasks: tuple[SegmentationTask, ...]


class SegmentationAnswer(BaseModel):
    """For each task whether a subject was found and its mask written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    found: tuple[bool, ...]


def segment_files(request: SegmentationRequest) -> SegmentationAnswer:
    """Find the subjects of photos, in this process.

    Raises:
        DetexError: As `open_segmenter`.
    """
    segmenter = open_segmenter(request.segmenter)
    found = []
    for task in request.tasks:
        with Image.open(task.photo, formats=["PNG"]) as photo:
            try:
                mask = segmenter.segment(photo.convert("RGB"))
            except SubjectNotFoundError:
                found.append(False)
                continue
        mask_to_image(mask).save(task.mask, format="PNG")
        found.append(True)
    return SegmentationAnswer(found=tuple(found))


def segment_apart(request: SegmentationRequest, *, timeout_seconds: float) -> SegmentationAnswer:
    """Find the subjects of photos in a child process; where that fails, none was found, and the log tells why."""
    nothing = SegmentationAnswer(found=(False,) * len(request.tasks))
    if not request.tasks:
        return nothing
    try:
        done = subprocess.run(
            _COMMAND,
            input=request.model_dump_json().encode(),
            capture_output=True,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        _log.error("segmenter %s took more than %g seconds\n%s", request.segmenter, timeout_seconds, _end(error.stderr))
        return nothing
    except OSError as error:
        _log.error("segmenter %s cannot be started: %s", request.segmenter, error.strerror)
        return nothing
    try:
        answer = SegmentationAnswer.model_validate_json(done.stdout)
    except ValidationError:
        status = f"ended with status {done.returncode}" if done.returncode else "gave no answer"
        _log.error("segmenter %s %s\n%s", request.segmenter, status, _end(done.stderr))
        return nothing
    return answer if len(answer.found) == len(request.tasks) else nothing


def _end(log: bytes | None) -> str:
    """The last lines that a segmenter wrote to its standard error."""
    return (log or b"").decode(errors="replace")[-_LOGGED_CHARACTERS:].strip()
