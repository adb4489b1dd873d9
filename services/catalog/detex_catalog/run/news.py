"""What the threads that talk to the services tell the run."""

from dataclasses import dataclass

from detex_catalog.table.catalog import ConceptOrder, PictureOrder
from detex_client import DetexClientError


@dataclass(frozen=True)
class DrawingTask:
    """One try of a picture.

    Attributes:
        number: Of the try, from 0.
        versions: Of the picture's concepts, by name.
    """

    order: PictureOrder
    number: int
    seed: int
    versions: dict[str, str]


@dataclass(frozen=True)
class Drawn:
    """A picture came."""

    task: DrawingTask
    png: bytes


@dataclass(frozen=True)
class Refused:
    """The generator will not draw this, however often it is asked."""

    task: DrawingTask
    error: DetexClientError


@dataclass(frozen=True)
class Trained:
    """A concept is published.

    Attributes:
        seconds: From submission to publication.
        steps: Optimisation steps.
    """

    order: ConceptOrder
    version: str
    seconds: float
    steps: int


@dataclass(frozen=True)
class NotTrained:
    """A job gave no concept."""

    order: ConceptOrder
    message: str


@dataclass(frozen=True)
class ServiceAway:
    """A service did not answer; it is asked again."""

    service: str
    error: DetexClientError


@dataclass(frozen=True)
class ServiceBack:
    """A service answers."""

    service: str


@dataclass(frozen=True)
class ThreadFailed:
    """A thread ended by what it cannot mend."""

    error: Exception


News = Drawn | Refused | Trained | NotTrained | ServiceAway | ServiceBack | ThreadFailed
