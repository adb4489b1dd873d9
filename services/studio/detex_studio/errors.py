"""What goes wrong, as the page is told of it."""

import grpc

from detex_client import DetexClientError

_STATUSES = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}


class StudioError(Exception):
    """A request that Studio itself refuses.

    Attributes:
        status: HTTP status.
        reason: Stable reason in capitals; the page has words for it.
        message: The same for logs and for who calls without the page.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message


def refused(field: str, accepted: str, given: object) -> StudioError:
    """The error for a value that is not accepted: `count: must be 1 to 8, got 99`."""
    text = str(given)
    return StudioError(400, "INVALID_INPUT", f"{field}: must be {accepted}, got {text[:200]}")


def not_found(what: str) -> StudioError:
    """The error for something that is not there."""
    return StudioError(404, "NOT_FOUND", f"There is no such {what}.")


def as_status(error: DetexClientError) -> int:
    """HTTP status of a failed call to a service."""
    return _STATUSES.get(error.code, 502)


def as_document(error: DetexClientError | StudioError) -> dict[str, object]:
    """The error as JSON: `reason` for the page's own words, `message` as the service worded it."""
    if isinstance(error, StudioError):
        return {"reason": error.reason, "message": error.message, "fields": [], "retry_seconds": None}
    fields = [{"field": each.field, "description": each.description} for each in error.violations]
    return {
        "reason": error.reason,
        "message": error.message,
        "fields": fields,
        "retry_seconds": error.retry_delay_seconds,
    }
