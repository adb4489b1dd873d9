"""Enumerations of the contract as Python enumerations with short lower-case values."""

from enum import StrEnum
from typing import Any, Self

import grpc

from detex_client.errors import DetexClientError
from detex_protos.v1 import common_pb2, generator_pb2, trainer_pb2


class WireEnum(StrEnum):
    """An enumeration of the contract: member `DETEX` of `Method` is `METHOD_DETEX` on the wire."""

    @classmethod
    def _wire(cls) -> tuple[Any, str]:
        """The enumeration of the contract and the prefix of its members."""
        raise TypeError(f"{cls.__name__} has no protobuf enum")

    def number(self) -> Any:
        """Its number on the wire."""
        wrapper, prefix = self._wire()
        return wrapper.Value(f"{prefix}{self.name}")

    @classmethod
    def from_number(cls, number: int) -> Self:
        """The member of a number on the wire.

        Raises:
            DetexClientError: UNIMPLEMENTED where a newer service sends what this client does not know.
        """
        wrapper, prefix = cls._wire()
        try:
            return cls[wrapper.Name(number).removeprefix(prefix)]
        except (KeyError, ValueError):
            raise DetexClientError(
                f"The service sent {cls.__name__} {number}, which this client does not know; upgrade the client.",
                code=grpc.StatusCode.UNIMPLEMENTED,
                reason="CLIENT_TOO_OLD",
            ) from None


class Verdict(WireEnum):
    """Whether a concept is fit for use."""

    FIT = "fit"
    DOUBTFUL = "doubtful"
    UNFIT = "unfit"

    @classmethod
    def _wire(cls) -> tuple[Any, str]:
        return trainer_pb2.Verdict, "VERDICT_"


class Method(WireEnum):
    """How a concept is learned."""

    DETEX = "detex"
    TEXTUAL_INVERSION = "textual_inversion"
    DREAMBOOTH = "dreambooth"
    DREAMBOOTH_LORA = "dreambooth_lora"
    CUSTOM_DIFFUSION = "custom_diffusion"

    @classmethod
    def _wire(cls) -> tuple[Any, str]:
        return common_pb2.Method, "METHOD_"


class MaskSource(WireEnum):
    """Where the mask of a photo comes from."""

    UNSPECIFIED = "unspecified"
    UPLOADED = "uploaded"
    ALPHA = "alpha"
    SEGMENTER = "segmenter"

    @classmethod
    def _wire(cls) -> tuple[Any, str]:
        return trainer_pb2.MaskSource, "MASK_SOURCE_"


class DeltaForm(WireEnum):
    """How key and value deltas are written into a concept."""

    LOW_RANK = "low_rank"
    FULL = "full"

    @classmethod
    def _wire(cls) -> tuple[Any, str]:
        return trainer_pb2.DeltaForm, "DELTA_FORM_"


class PriorPreservation(WireEnum):
    """How a job keeps what the base model knows of the subject's class."""

    NONE = "none"
    IMAGES = "images"
    PROMPT = "prompt"
    KEY_VALUES = "key_values"

    @classmethod
    def _wire(cls) -> tuple[Any, str]:
        return trainer_pb2.PriorPreservation, "PRIOR_PRESERVATION_"


class SubjectStart(WireEnum):
    """Where the subject word begins."""

    CLASS_WORD = "class_word"
    RARE_WORD = "rare_word"
    PLAIN_WORDS = "plain_words"

    @classmethod
    def _wire(cls) -> tuple[Any, str]:
        return trainer_pb2.SubjectStart, "SUBJECT_START_"


class AttributeStart(WireEnum):
    """Where attribute words begin."""

    NOUN = "noun"
    PLAIN_WORDS = "plain_words"

    @classmethod
    def _wire(cls) -> tuple[Any, str]:
        return trainer_pb2.AttributeStart, "ATTRIBUTE_START_"


class JobState(WireEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @classmethod
    def _wire(cls) -> tuple[Any, str]:
        return trainer_pb2.JobState, "JOB_STATE_"

    @property
    def ended(self) -> bool:
        """Whether a job in this state stays in it."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class JobPhase(WireEnum):
    """What a running job does."""

    UNSPECIFIED = "unspecified"
    PREPARING = "preparing"
    TRAINING = "training"
    PUBLISHING = "publishing"

    @classmethod
    def _wire(cls) -> tuple[Any, str]:
        return trainer_pb2.JobPhase, "JOB_PHASE_"


class Solver(WireEnum):
    """How the reverse diffusion is solved."""

    DDIM = "ddim"
    EULER = "euler"
    DPM_SOLVER_PP_2M = "dpm_solver_pp_2m"
    EULER_ANCESTRAL = "euler_ancestral"
    LCM = "lcm"
    TCD = "tcd"

    @classmethod
    def _wire(cls) -> tuple[Any, str]:
        return generator_pb2.Solver, "SOLVER_"


class Priority(WireEnum):
    """Which requests go first when more are there than can be drawn at once."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"

    @classmethod
    def _wire(cls) -> tuple[Any, str]:
        return generator_pb2.Priority, "PRIORITY_"
