"""Domain errors. Each has a gRPC status, a stable reason and a human-readable message.

Raised anywhere below a servicer; `detex_core.grpc_server` turns them into statuses with google.rpc details. Any other
exception is a bug and reaches the caller as INTERNAL without its text.
"""

from dataclasses import dataclass, replace

import grpc


@dataclass(frozen=True)
class Violation:
    """What is wrong with one field of a request.

    Attributes:
        field: Path of the field as the contract names it, for example `hyperparameters.steps`.
        given: The value received, shortened; follows "got" in the message.
        accepted: What is accepted; follows "must be" in the message.
        place: What the field belongs to, as the caller knows it, for example `photo 2 (cup.jpg)`; empty where the field
            name is enough.
        note: Why, or what to do; empty where the rest is enough.
    """

    field: str
    given: str
    accepted: str
    place: str = ""
    note: str = ""

    def sentence(self) -> str:
        """One sentence: the field, what it must be, what was received."""
        place = f"{self.place}: " if self.place else ""
        return f"{place}{self.field}: {self._expectation()}"

    def description(self) -> str:
        """The same without the field."""
        expectation = self._expectation()
        return f"{self.place}: {expectation}" if self.place else f"{expectation[0].upper()}{expectation[1:]}"

    def _expectation(self) -> str:
        note = f"; {self.note}" if self.note else ""
        return f"must be {self.accepted}, got {self.given}{note}."


class DetexError(Exception):
    """Base class of all domain errors.

    Attributes:
        code: gRPC status of a call that ends with this error.
        reason: Stable, machine-readable reason in capitals.
        retry_delay_seconds: How long to wait before a retry that can succeed; None where a retry cannot.
    """

    code: grpc.StatusCode = grpc.StatusCode.INTERNAL
    reason: str = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None, retry_delay_seconds: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).reason
        self.retry_delay_seconds = retry_delay_seconds

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Fields that the caller can correct; empty for most errors."""
        return ()


class InvalidInputError(DetexError):
    """The request itself is invalid, whatever the state of the service."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_INPUT"

    def __init__(self, *violations: Violation, reason: str | None = None) -> None:
        super().__init__(" ".join(violation.sentence() for violation in violations), reason=reason)
        self._violations = violations

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Fields that the caller can correct."""
        return self._violations

    def at(self, place: str) -> "InvalidInputError":
        """The same error with `place` set on every violation that has none."""
        placed = (each if each.place else replace(each, place=place) for each in self._violations)
        return InvalidInputError(*placed, reason=self.reason)


def invalid_input(field: str, given: object, accepted: str, *, place: str = "", note: str = "") -> InvalidInputError:
    """The error for one invalid field, "must be `accepted`, got `given`"; values are cut to 80 characters."""
    text = str(given)
    return InvalidInputError(Violation(field, text if len(text) <= 80 else f"{text[:77]}...", accepted, place, note))


class NotFoundError(DetexError):
    """The object named in the request does not exist for this tenant."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "NOT_FOUND"


class AlreadyExistsError(DetexError):
    """The object to be created already exists with different content."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class FailedPreconditionError(DetexError):
    """The request is valid but not possible in the current state, for example a concept of another base model."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"


class UnauthenticatedError(DetexError):
    """Who calls is not known: no credentials came with the call, or none that are valid."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDeniedError(DetexError):
    """The credentials, of the object store or of the caller, do not allow this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class ResourceExhaustedError(DetexError):
    """A limit has been reached: a full queue, a quota, a full disk."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "RESOURCE_EXHAUSTED"


class UnavailableError(DetexError):
    """A dependency of this service is not responding; a retry can succeed."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "UNAVAILABLE"

    def __init__(self, message: str, *, reason: str | None = None, retry_delay_seconds: float = 1.0) -> None:
        super().__init__(message, reason=reason, retry_delay_seconds=retry_delay_seconds)


class DataLossError(DetexError):
    """Stored data is corrupt or missing: a wrong hash, a missing file of a published concept, NaN weights."""

    code = grpc.StatusCode.DATA_LOSS
    reason = "DATA_LOSS"


class AbortedError(DetexError):
    """Lost a race against another writer; the caller may read again and retry."""

    code = grpc.StatusCode.ABORTED
    reason = "ABORTED"
