"""Facts of a demonstration, for summary.json: what ran, on what, how long, what came out. No judgement."""

import os
import platform
import resource
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from detex_client.concept import BaseModel, ConceptReference

_PACKAGES = ("detex", "torch", "diffusers", "transformers", "grpcio", "pillow")


@dataclass(frozen=True)
class Machine:
    """Where it ran.

    Attributes:
        platform: Operating system and architecture.
        cpu_cores: Cores that this process may use.
        memory_bytes: Memory of the machine; None where it cannot be told.
    """

    platform: str
    cpu_cores: int
    memory_bytes: int | None


@dataclass(frozen=True)
class DrawnPicture:
    """A picture of the demonstration.

    Attributes:
        file: Path below the demonstration's folder.
        kind: What it shows.
        prompt: Prompt.
        seed: Seed.
        steps: Denoising steps.
        guidance_scale: Guidance scale.
        solver: Solver.
    """

    file: str
    kind: str
    prompt: str
    seed: int
    steps: int
    guidance_scale: float
    solver: str


@dataclass(frozen=True)
class SubjectSummary:
    """What became of one subject.

    Attributes:
        name: Sample subject.
        class_word: Its class word.
        photos: Poses and scenes of its photos, as labelled.
        concept: What was published.
        method: How it was learned.
        hyperparameters: All hyperparameters as used.
        losses: Smoothed losses at the end of training.
        seconds: Time of upload, training (with waiting and publishing) and generation.
        pictures: What was drawn.
    """

    name: str
    class_word: str
    photos: tuple[dict[str, str], ...]
    concept: ConceptReference
    method: str
    hyperparameters: dict[str, object]
    losses: dict[str, float]
    seconds: dict[str, float]
    pictures: tuple[DrawnPicture, ...]


@dataclass
class Summary:
    """All facts of one demonstration.

    Attributes:
        begun: When it began.
        versions: Versions of Python and of what it ran with.
        machine: Where it ran.
        base_model: What the subjects were learned on.
        seed: Seed that all others follow from.
        subjects: The subjects.
        seconds: Time of starting the services, of the contact sheet, and in all.
        largest_process_bytes: Peak memory of the largest process that the demonstration started.
        contact_sheet: File of the contact sheet.
    """

    seed: int
    begun: datetime = field(default_factory=lambda: datetime.now(UTC))
    versions: dict[str, str] = field(default_factory=lambda: _versions())
    machine: Machine = field(default_factory=lambda: _machine())
    base_model: BaseModel | None = None
    subjects: list[SubjectSummary] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    largest_process_bytes: int = 0
    contact_sheet: str = ""


def largest_child_bytes() -> int:
    """Peak resident memory of the largest process below this one that has ended."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _machine() -> Machine:
    try:
        memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        memory_bytes = None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(f"{platform.system()} {platform.machine()}", cores, memory_bytes)
