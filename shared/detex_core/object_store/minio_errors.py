"""What the errors of the `minio` client and of urllib3 mean."""

from collections.abc import Iterator
from contextlib import contextmanager

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError

from detex_core.errors import (
    AbortedError,
    DetexError,
    FailedPreconditionError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)

BUCKET_MISSING = "BUCKET_MISSING"

_ABSENT = frozenset({"NoSuchKey", "NoSuchObject", "NoSuchVersion"})
_REFUSED = frozenset(
    {
        "AccessDenied",
        "AccountProblem",
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidTokenId",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
_FULL = frozenset(
    {
        "InsufficientStorage",
        "QuotaExceeded",
        "XMinioAdminBucketQuotaExceeded",
        "XMinioStorageFull",
    }
)
_CONFLICT = frozenset(
    {"ParentIsObject", "XMinioParentIsObject", "XMinioObjectExistsAsDirectory", "ExistingObjectIsDirectory"}
)


def is_precondition(error: S3Error) -> bool:
    """Whether a conditional write failed by its condition, or met another conditional write."""
    return error.code in ("PreconditionFailed", "ConditionalRequestConflict") or error.response.status == 412


@contextmanager
def s3_errors(subject: str) -> Iterator[None]:
    """Turn errors of the client into errors of the domain; `subject` begins their sentence."""
    try:
        yield
    except S3Error as error:
        raise _meaning(subject, error) from error
    except ServerError as error:
        if error.status_code == 507:
            raise _full(subject) from error
        raise UnavailableError(f"{subject}: the object store answers with HTTP {error.status_code}.") from error
    except InvalidResponseError as error:
        raise UnavailableError(f"{subject}: what answers at the endpoint is no S3 server.") from error
    except (HTTPError, MinioException) as error:
        raise UnavailableError(f"{subject}: the object store does not answer ({type(error).__name__}).") from error


def _meaning(subject: str, error: S3Error) -> DetexError:
    code, status = error.code or "", error.response.status
    if code == "NoSuchBucket":
        return NotFoundError(f"{subject}: its bucket does not exist.", reason=BUCKET_MISSING)
    if code in _ABSENT or status == 404:
        return NotFoundError(f"There is no {subject[0].lower()}{subject[1:]}.")
    if code in _FULL or status == 507:
        return _full(subject)
    if code in _REFUSED or status in (401, 403):
        return PermissionDeniedError(f"{subject}: the object store refuses the credentials ({code}).")
    if code in _CONFLICT:
        return FailedPreconditionError(
            f"{subject} cannot be written: another key lies above or below it.", reason="KEY_CONFLICT"
        )
    if status in (409, 412):
        return AbortedError(f"{subject}: another write came in between ({code}).", retry_delay_seconds=0.1)
    return UnavailableError(f"{subject}: the object store answers with {code or f'HTTP {status}'}.")


def _full(subject: str) -> ResourceExhaustedError:
    return ResourceExhaustedError(f"{subject}: the object store is full.", reason="STORAGE_FULL")
