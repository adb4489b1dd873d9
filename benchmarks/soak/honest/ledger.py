"""What a tenant was promised: each acknowledged photo, mask, job, concept and picture, to be looked for at the end."""

import asyncio
from dataclasses import dataclass, field

from detex_protos.v1 import trainer_pb2


@dataclass
class KeptMask:
    """The mask of a photo.

    Attributes:
        acknowledged: Pixels of the mask that was acknowledged last.
        perhaps: Pixels of masks that were sent since by calls that failed, and may have taken effect nevertheless.
    """

    acknowledged: bytes
    perhaps: list[bytes] = field(default_factory=list)


@dataclass
class KeptSet:
    """A training set that was acknowledged.

    Attributes:
        training_set: As last told.
        photos: Pixels of its photos.
        masks: Their masks.
        changing: Held by whoever changes it, so that it is known which change was the last.
    """

    training_set: trainer_pb2.TrainingSet
    photos: list[bytes]
    masks: list[KeptMask]
    changing: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass
class KeptConcept:
    """A concept that one of the tenant's jobs has published.

    Attributes:
        concept: As told after its job.
        picture: PNG drawn with it then, at `PICTURE_SEED`.
    """

    concept: trainer_pb2.Concept
    picture: bytes


@dataclass
class Ledger:
    """All promises to one tenant.

    Attributes:
        sets: Its training sets.
        jobs: Names of concepts by the ids of the jobs that are to publish them.
        concepts: Concepts by name.
        images: Pictures that were received and were what had been asked for.
    """

    sets: list[KeptSet] = field(default_factory=list)
    jobs: dict[str, str] = field(default_factory=dict)
    concepts: dict[str, KeptConcept] = field(default_factory=dict)
    images: int = 0
