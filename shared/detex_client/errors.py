"""The client's only exception, with everything the services report about a failure."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import grpc
from google.protobuf import message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from detex_core.errors import DetexError, InvalidInputError
from detex_core.errors import Violation as DomainViolation
from detex_protos.v1 import generator_pb2

_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True)
class Violation:
    """What is wrong with one field.

    Attributes:
        field: Path of the field, for example `hyperparameters.steps`.
        description: What it must be and what was received.
    """

    field: str
    description: str


class DetexClientError(Exception):
    """A call failed, or could not be made with the given arguments.

    Attributes:
        code: gRPC status; INVALID_ARGUMENT also for input that the client rejects before calling.
        reason: Stable, machine-readable reason in capitals.
        message: Human-readable message.
        violations: The invalid fields and what is wrong with each; empty for most errors.
        retry_delay_seconds: How long to wait before retrying; None where the service gives no delay.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str,
        violations: tuple[Violation, ...] = (),
        retry_delay_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.reason = reason
        self.violations = violations
        self.retry_delay_seconds = retry_delay_seconds


def refused(field: str, given: object, accepted: str) -> DetexClientError:
    """The error for input that the client itself rejects, in the words of the services."""
    text = str(given)
    violation = DomainViolation(field, text if len(text) <= 200 else f"{text[:197]}...", accepted)
    return DetexClientError(
        violation.sentence(),
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason=InvalidInputError.reason,
        violations=(Violation(field, violation.description()),),
    )


def with_file_names(error: DetexClientError, files: Mapping[str, Path]) -> DetexClientError:
    """The same error with the names of the files that fields were read from: `regions[1].mask "back.png": must be ...`.

    Args:
        error: As the service worded it.
        files: The files of a request by the paths of their fields.
    """
    named = {violation.field: files[violation.field] for violation in error.violations if violation.field in files}
    if not named:
        return error
    message = error.message
    for field, path in named.items():
        message = message.replace(f"{field}: ", f'{field} "{path.name}": ', 1)
    violations = tuple(
        Violation(each.field, f'"{named[each.field].name}": {each.description}') if each.field in named else each
        for each in error.violations
    )
    return DetexClientError(
        message,
        code=error.code,
        reason=error.reason,
        violations=violations,
        retry_delay_seconds=error.retry_delay_seconds,
    )


@contextmanager
def naming_files(files: Mapping[str, Path]) -> Iterator[None]:
    """Errors of a call inside the block name the files that their fields were read from."""
    try:
        yield
    except DetexClientError as error:
        raise with_file_names(error, files) from None


@contextmanager
def from_domain() -> Iterator[None]:
    """Turn an error of what runs on this machine itself into DetexClientError, as a service would have sent it."""
    try:
        yield
    except DetexError as error:
        raise DetexClientError(
            error.message,
            code=error.code,
            reason=error.reason,
            violations=tuple(Violation(each.field, each.description()) for each in error.violations),
            retry_delay_seconds=error.retry_delay_seconds,
        ) from None


class _Call(Protocol):
    """What the two kinds of failed gRPC calls have in common."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...


@contextmanager
def translated(peer: str) -> Iterator[None]:
    """Turn a failed call inside the block into DetexClientError; `peer` names the service and its address."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_call(error, peer) from None


def from_call(error: grpc.RpcError, peer: str) -> DetexClientError:
    """The error of a failed call; `peer` is for example `trainer at 127.0.0.1:50051`."""
    call = cast("_Call", error)
    status = _status(error)
    detail = call.details() or ""
    if status is not None:
        return _from_status(status, call.code())
    return DetexClientError(_transport_sentence(call.code(), detail, peer), code=call.code(), reason=call.code().name)


def from_request_error(error: generator_pb2.RequestError) -> DetexClientError:
    """The error of one request in a stream of many."""
    return DetexClientError(
        error.message,
        code=_CODES.get(error.code, grpc.StatusCode.UNKNOWN),
        reason=error.reason,
        violations=tuple(Violation(violation.field, violation.description) for violation in error.violations),
        retry_delay_seconds=error.retry_delay.ToTimedelta().total_seconds() if error.HasField("retry_delay") else None,
    )


def _status(error: grpc.RpcError) -> status_pb2.Status | None:
    try:
        return cast("status_pb2.Status | None", rpc_status.from_call(cast("Any", error)))
    except (ValueError, message.DecodeError):
        return None


def _from_status(status: status_pb2.Status, code: grpc.StatusCode) -> DetexClientError:
    reason = code.name
    violations: tuple[Violation, ...] = ()
    retry_delay_seconds = None
    for detail in status.details:
        info, request, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(request):
            violations = tuple(Violation(found.field, found.description) for found in request.field_violations)
        elif detail.Unpack(retry):
            retry_delay_seconds = retry.retry_delay.ToTimedelta().total_seconds()
    return DetexClientError(
        status.message, code=code, reason=reason, violations=violations, retry_delay_seconds=retry_delay_seconds
    )


def _transport_sentence(code: grpc.StatusCode, detail: str, peer: str) -> str:
    """The message for a status set by gRPC itself, which has no details."""
    if code is grpc.StatusCode.UNAVAILABLE:
        # gRPC's detail is a chain of causes; the last one is the root.
        return f"The {peer} does not answer ({detail.rpartition(': ')[2]})."
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"The {peer} did not answer in time."
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"The {peer} is a different service, or a different version of it ({detail})."
    if code is grpc.StatusCode.CANCELLED:
        return f"The call to the {peer} was cancelled."
    return f"The {peer} failed: {detail or code.name}."
