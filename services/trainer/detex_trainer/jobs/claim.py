"""A job as the server knows it that holds it."""

from dataclasses import dataclass

from detex_trainer.jobs.record import Job, JobFailure


@dataclass(frozen=True)
class JobClaim:
    """A job held by one server.

    Attributes:
        job: The job as it stood when it was claimed.
        owner: The server.
        number: How often the job was claimed before and with this claim.
        pack_id: Names the worker that trains it, alone or with others.
        to_end: Why the job is to be ended and not to be run; None where it is to be run.
    """

    job: Job
    owner: str
    number: int
    pack_id: str
    to_end: JobFailure | None = None


@dataclass(frozen=True)
class HeldJob:
    """A claim as found when it was renewed.

    Attributes:
        job_id: Id of the job.
        number: Number of the claim.
        cancel_requested: True once the caller asked the job to stop.
        deadline_passed: True once its caller has no more use for it.
    """

    job_id: str
    number: int
    cancel_requested: bool
    deadline_passed: bool


@dataclass(frozen=True)
class PackLimits:
    """How many jobs a server takes at a time, to be trained together.

    Attributes:
        most: Jobs of a pack.
        idle_workers: Workers without work; what waits is spread over them.
        max_attempts: How often a job is tried; the last of several attempts is made alone.
        follows_workers: Whether workers live on without their server, so that jobs of a lost one stay together.
    """

    most: int = 1
    idle_workers: int = 1
    max_attempts: int = 1
    follows_workers: bool = False
