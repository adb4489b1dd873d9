"""Errors of the domain. Each knows its gRPC status, a stable reason and a sentence for people.

Raised anywhere below a servicer; `detex_core.grpc_server` turns them into statuses with google.rpc details. An
exception that is not one of these is a defect of ours and reaches the caller as INTERNAL without its text.
"""

from dataclasses import dataclass, replace

import grpc


@dataclass(frozen=True)
class Violation:
    """What is wrong with one field of a request.

    Attributes:
        field: Path of the field as the contract names it, for example `hyperparameters.steps`.
        given: What was given, shortened for people.
        accepted: What is accepted.
        place: What the field belongs to, as its caller knows it, for example `photo 2 (cup.jpg)`; empty where the field
            says all.
    """

    field: str
    given: str
    accepted: str
    place: str = ""

    def sentence(self) -> str:
        """One sentence: the field, what was given, what is accepted."""
        place = f"{self.place}: " if self.place else ""
        return f"{place}{self.field}: given {self.given}; accepted is {self.accepted}."

    def description(self) -> str:
        """The same without the field."""
        place, given = (f"{self.place}: ", "given") if self.place else ("", "Given")
        return f"{place}{given} {self.given}; accepted is {self.accepted}."


class DetexError(Exception):
    """Base of all errors of the domain.

    Attributes:
        code: gRPC status of a call that ends with this error.
        reason: Stable reason in capitals, for machines.
        retry_delay_seconds: When a later try can succeed, the wait before it; otherwise None.
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
        """Fields that the caller can mend; empty for most errors."""
        return ()


class InvalidInputError(DetexError):
    """The request itself is wrong, whatever the state of the service."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_INPUT"

    def __init__(self, *violations: Violation, reason: str | None = None) -> None:
        super().__init__(" ".join(violation.sentence() for violation in violations), reason=reason)
        self._violations = violations

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Fields that the caller can mend."""
        return self._violations

    def at(self, place: str) -> "InvalidInputError":
        """The same error of fields that belong to a place, where they do not say theirs already."""
        placed = (each if each.place else replace(each, place=place) for each in self._violations)
        return InvalidInputError(*placed, reason=self.reason)


def invalid_input(field: str, given: object, accepted: str, *, place: str = "") -> InvalidInputError:
    """The error for one wrong field; long values are shortened to 80 characters."""
    text = str(given)
    return InvalidInputError(Violation(field, text if len(text) <= 80 else f"{text[:77]}...", accepted, place))


class NotFoundError(DetexError):
    """What the request names does not exist for this tenant."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "NOT_FOUND"


class AlreadyExistsError(DetexError):
    """What the request would create exists already, with other content."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class FailedPreconditionError(DetexError):
    """The request is well formed but does not fit the state, for example a concept of another base model."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"


class PermissionDeniedError(DetexError):
    """Refused by credentials: the object store's or the caller's."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class ResourceExhaustedError(DetexError):
    """A limit is reached: a full queue, a quota, a full disk."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "RESOURCE_EXHAUSTED"


class UnavailableError(DetexError):
    """Something this service needs does not answer now; a later try can succeed."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "UNAVAILABLE"

    def __init__(self, message: str, *, reason: str | None = None, retry_delay_seconds: float = 1.0) -> None:
        super().__init__(message, reason=reason, retry_delay_seconds=retry_delay_seconds)


class DataLossError(DetexError):
    """Stored data is not what it was when written: a wrong hash, a missing file of a published concept, NaN weights."""

    code = grpc.StatusCode.DATA_LOSS
    reason = "DATA_LOSS"


class AbortedError(DetexError):
    """Lost a race against another writer; the caller may look again and retry."""

    code = grpc.StatusCode.ABORTED
    reason = "ABORTED"
