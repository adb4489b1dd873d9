"""Errors of the domain as gRPC statuses with google.rpc details, and as elements of streams."""

import logging
import secrets
from collections.abc import Sequence

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from detex_core.errors import DetexError, Violation
from detex_protos.v1 import generator_pb2

ERROR_DOMAIN = "detex"

# A status travels in trailing metadata, of which callers take 8 KiB by default: the sentence (percent-encoded, and once
# more in the details) and the violations (in base64) have to fit together.
_MAX_MESSAGE_BYTES = 1_200
_MAX_FIELD_BYTES = 200
_MAX_DESCRIPTION_BYTES = 600
_MAX_VIOLATIONS_BYTES = 2_400

logger = logging.getLogger(__name__)


class InternalError(DetexError):
    """A bug. Its text is in the log under the incident id that the caller is told.

    Attributes:
        incident: The id.
    """

    def __init__(self, incident: str) -> None:
        super().__init__(f"Internal error; the service's log has details under incident {incident}.")
        self.incident = incident


def as_domain_error(error: BaseException) -> DetexError:
    """The error itself where it is of the domain; for any other, an InternalError, and its text goes to the log."""
    if isinstance(error, DetexError):
        return error
    incident = secrets.token_hex(6)
    logger.error("incident %s", incident, exc_info=error, extra={"incident": incident})
    return InternalError(incident)


def rich_status(error: DetexError) -> grpc.Status:
    """The status of a call that ends with this error: code, sentence, ErrorInfo, BadRequest, RetryInfo."""
    status = Status(code=error.code.value[0], message=_shortened(error.message, _MAX_MESSAGE_BYTES))
    info = ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN)
    if isinstance(error, InternalError):
        info.metadata["incident"] = error.incident
    status.details.add().Pack(info)
    if error.violations:
        violations = [BadRequest.FieldViolation(field=f, description=d) for f, d in _descriptions(error.violations)]
        status.details.add().Pack(BadRequest(field_violations=violations))
    if error.retry_delay_seconds is not None:
        status.details.add().Pack(RetryInfo(retry_delay=_duration(error.retry_delay_seconds)))
    return rpc_status.to_status(status)


def request_error(error: BaseException) -> generator_pb2.RequestError:
    """The same content as an element of a stream; of a bug the caller learns the incident id only."""
    known = as_domain_error(error)
    return generator_pb2.RequestError(
        code=known.code.value[0],
        reason=known.reason,
        message=_shortened(known.message, _MAX_MESSAGE_BYTES),
        violations=[generator_pb2.FieldViolation(field=f, description=d) for f, d in _descriptions(known.violations)],
        retry_delay=None if known.retry_delay_seconds is None else _duration(known.retry_delay_seconds),
    )


def _descriptions(violations: Sequence[Violation]) -> list[tuple[str, str]]:
    """Fields and what is wrong with them, as many as fit."""
    kept = []
    left = _MAX_VIOLATIONS_BYTES
    for violation in violations:
        field = _shortened(violation.field, _MAX_FIELD_BYTES)
        description = _shortened(violation.description(), _MAX_DESCRIPTION_BYTES)
        left -= len(field.encode()) + len(description.encode())
        if left < 0:
            break
        kept.append((field, description))
    return kept


def _shortened(text: str, max_bytes: int) -> str:
    """The text, cut where its percent-encoded form is longer than `max_bytes`."""
    size = 0
    for position, character in enumerate(text):
        size += 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode(errors="replace"))
        if size > max_bytes:
            return f"{text[: max(position - 3, 0)]}..."
    return text


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(round(seconds * 1_000))
    return duration
