"""What became of concepts and pictures so far, as the journals tell it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from detex_catalog.run.journal import Event
from detex_catalog.table.catalog import ConceptOrder, PictureOrder

_SEED_STRIDE = 0x9E3779B1
"""Between the seeds of two tries; odd, so that no seed comes twice within 2^32 tries."""


class PictureStatus(StrEnum):
    """Where a picture stands."""

    OPEN = "open"
    ACCEPTED = "accepted"
    REVIEW = "review"
    FAILED = "failed"


@dataclass(frozen=True)
class Try:
    """One drawing of a picture.

    Attributes:
        number: From 0.
        reasons: What speaks against it.
        measures: What the checks measured.
    """

    number: int
    seed: int
    sha256: str
    size_bytes: int
    version: str = ""
    perceptual_hash: str = ""
    reasons: tuple[str, ...] = ()
    measures: dict[str, float] = field(default_factory=dict)

    def better_than(self, other: "Try | None") -> bool:
        """Whether this is the one to show to people: fewer reasons against it, then more likeness."""
        if other is None:
            return True
        return (-len(self.reasons), self.measures.get("likeness", 0.0)) > (
            -len(other.reasons),
            other.measures.get("likeness", 0.0),
        )


@dataclass
class PictureState:
    """What became of a picture.

    Attributes:
        fingerprint: Of the order that it was drawn for.
        tries: Tries that have ended.
        budget_from: Tries before the present round of redraws.
        kept: The try that lies in `pictures/` or `review/`.
        message: Why it could not be drawn at all.
        approved: Whether somebody has accepted it against the checks.
    """

    fingerprint: str
    status: PictureStatus = PictureStatus.OPEN
    tries: int = 0
    budget_from: int = 0
    kept: Try | None = None
    message: str = ""
    approved: bool = False

    def tries_left(self, max_redraws: int) -> int:
        """Tries that this round still has."""
        return max(0, max_redraws + 1 - (self.tries - self.budget_from))


@dataclass
class ConceptState:
    """What became of the training of a concept.

    Attributes:
        fingerprint: Of the order that it is trained for.
        attempt: Jobs that were begun for it, from 1.
        training_set_id: Photos as the trainer keeps them; known before the job is submitted.
        version: Version that was published; empty while it is not.
        message: Why the last job gave no concept.
        seconds: From submission to publication.
        steps: Optimisation steps of the job.
    """

    fingerprint: str
    attempt: int = 0
    training_set_id: str = ""
    job_id: str = ""
    version: str = ""
    message: str = ""
    seconds: float = 0.0
    steps: int = 0


@dataclass
class Rates:
    """What earlier runs have measured.

    Attributes:
        pictures: Pictures drawn while drawing went on.
        drawing_seconds: For so long.
        trained: Concepts trained.
        training_seconds: Time in which at least one concept was trained.
    """

    pictures: int = 0
    drawing_seconds: float = 0.0
    trained: int = 0
    training_seconds: float = 0.0


class RunState:
    """Everything by name. Feed it with events, of the journals first and then of the run itself."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.pictures: dict[str, PictureState] = {}
        self.concepts: dict[str, ConceptState] = {}
        self.known_photos: set[str] = set()
        self.rates = Rates()
        for event in events:
            self.apply(event)

    def apply(self, event: Event) -> None:
        """Take in an event; kinds that a newer version writes are passed over."""
        handler = getattr(self, f"_on_{event['event']}", None)
        if handler is not None:
            handler(event)

    def picture(self, order: PictureOrder) -> PictureState:
        """The state of a picture as it is ordered now; a changed order starts over."""
        state = self.pictures.get(order.output)
        if state is None or state.fingerprint != order.fingerprint:
            state = PictureState(order.fingerprint)
        return state

    def concept(self, order: ConceptOrder) -> ConceptState:
        """The state of a concept as it is ordered now."""
        state = self.concepts.get(order.name)
        if state is None or state.fingerprint != order.fingerprint:
            state = ConceptState(order.fingerprint)
        return state

    def _picture_of(self, event: Event) -> PictureState:
        state = self.pictures.get(event["output"])
        if state is None or state.fingerprint != event["fingerprint"]:
            state = self.pictures[event["output"]] = PictureState(event["fingerprint"])
        return state

    def _concept_of(self, event: Event) -> ConceptState:
        state = self.concepts.get(event["concept"])
        if state is None or state.fingerprint != event["fingerprint"]:
            state = self.concepts[event["concept"]] = ConceptState(event["fingerprint"])
        return state

    def _on_photos(self, event: Event) -> None:
        self.known_photos.update(event["sha256"])

    def _on_training(self, event: Event) -> None:
        state = self._concept_of(event)
        state.attempt, state.training_set_id = event["attempt"], event["training_set_id"]
        state.job_id = state.version = state.message = ""

    def _on_job(self, event: Event) -> None:
        self._concept_of(event).job_id = event["job_id"]

    def _on_concept(self, event: Event) -> None:
        state = self._concept_of(event)
        state.version, state.message = event["version"], ""
        state.seconds, state.steps = event.get("seconds", 0.0), event.get("steps", 0)

    def _on_concept_failed(self, event: Event) -> None:
        state = self._concept_of(event)
        state.message, state.version = event["message"], ""

    def _on_try(self, event: Event) -> None:
        state, found = self._picture_of(event), _try(event)
        state.tries = found.number + 1
        if event["kept"]:
            state.kept = found

    def _on_accepted(self, event: Event) -> None:
        state = self._picture_of(event)
        state.kept = found = _try(event)
        state.tries, state.status, state.message = found.number + 1, PictureStatus.ACCEPTED, ""

    def _on_review(self, event: Event) -> None:
        self._picture_of(event).status = PictureStatus.REVIEW

    def _on_failed(self, event: Event) -> None:
        state = self._picture_of(event)
        state.status, state.message = PictureStatus.FAILED, event["message"]

    def _on_reopened(self, event: Event) -> None:
        state = self._picture_of(event)
        state.status, state.message = PictureStatus.OPEN, ""
        if event["next_round"]:
            state.budget_from, state.kept, state.approved = state.tries, None, False
        else:
            state.tries = state.budget_from = 0
            state.kept = None

    def _on_approved(self, event: Event) -> None:
        state = self._picture_of(event)
        state.status, state.approved = PictureStatus.ACCEPTED, True

    def _on_rates(self, event: Event) -> None:
        self.rates.pictures += event["pictures"]
        self.rates.drawing_seconds += event["drawing_seconds"]
        self.rates.trained += event["trained"]
        self.rates.training_seconds += event["training_seconds"]


def seed_of_try(first: int, number: int) -> int:
    """The seed of a try; the first takes that of the order."""
    return (first + number * _SEED_STRIDE) % 2**32


def try_values(found: Try) -> dict[str, Any]:
    """A try as an event holds it."""
    return {
        "number": found.number,
        "seed": found.seed,
        "sha256": found.sha256,
        "size_bytes": found.size_bytes,
        "version": found.version,
        "perceptual_hash": found.perceptual_hash,
        "reasons": list(found.reasons),
        "measures": found.measures,
    }


def _try(event: Event) -> Try:
    return Try(
        event["number"],
        event["seed"],
        event["sha256"],
        event["size_bytes"],
        event["version"],
        event["perceptual_hash"],
        tuple(event["reasons"]),
        dict(event["measures"]),
    )
