"""What callers may do: the role that each method of the contract needs."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What a caller may do within its tenant."""

    READ = "read"
    """See training sets, jobs, concepts, reports, base models and methods."""

    TRAIN = "train"
    """Upload and delete photos and masks, submit and cancel jobs, delete concepts."""

    GENERATE = "generate"
    """Draw pictures, and bring concepts into memory."""

    ADMIN = "admin"
    """All of it, for any tenant that the call names."""


_TRAINER, _GENERATOR = "detex.v1.TrainerService", "detex.v1.GeneratorService"

ROLE_OF_METHOD: Final[Mapping[str, Role]] = {
    f"{_TRAINER}/UploadTrainingSet": Role.TRAIN,
    f"{_TRAINER}/GetUpload": Role.TRAIN,
    f"{_TRAINER}/GetTrainingSet": Role.READ,
    f"{_TRAINER}/GetMask": Role.READ,
    f"{_TRAINER}/ReplaceMask": Role.TRAIN,
    f"{_TRAINER}/DeleteTrainingSet": Role.TRAIN,
    f"{_TRAINER}/SubmitJob": Role.TRAIN,
    f"{_TRAINER}/GetJob": Role.READ,
    f"{_TRAINER}/ListJobs": Role.READ,
    f"{_TRAINER}/WatchJob": Role.READ,
    f"{_TRAINER}/CancelJob": Role.TRAIN,
    f"{_TRAINER}/GetConcept": Role.READ,
    f"{_TRAINER}/GetConceptReport": Role.READ,
    f"{_TRAINER}/ListConcepts": Role.READ,
    f"{_TRAINER}/DeleteConcept": Role.TRAIN,
    f"{_TRAINER}/ListTrainableBaseModels": Role.READ,
    f"{_TRAINER}/ListMethods": Role.READ,
    f"{_GENERATOR}/Generate": Role.GENERATE,
    f"{_GENERATOR}/GenerateMany": Role.GENERATE,
    f"{_GENERATOR}/ListBaseModels": Role.READ,
    f"{_GENERATOR}/ListResidentConcepts": Role.READ,
    f"{_GENERATOR}/PrefetchConcept": Role.GENERATE,
}
"""By full name of the method. One that is not here needs `admin`."""


def role_of(method: str) -> Role:
    """The role that a method (`package.Service/Method`) needs."""
    return ROLE_OF_METHOD.get(method, Role.ADMIN)
