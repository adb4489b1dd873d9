"""What the errors of the `minio` client and of urllib3 mean."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

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
        "InvalidAccessKeyId",
        "InvalidTokenId",
        "SignatureDoesNotMatch",
    }
)
_CLOCK = frozenset({"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"})
"""Passes when the clocks agree again. Other codes than those named here pass by themselves: SlowDown, InternalError."""
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
"""Passes when whoever issues the credentials has renewed them."""
_LARGEST_SKEW_SECONDS = 600.0
"""S3 refuses requests that are 15 minutes from its own clock; answers without a body do not say why."""
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
        raise UnavailableError(f"{subject}: the endpoint is not an S3 server.") from error
    except ValueError as error:
        if "header" not in str(error).lower():
            raise
        # A header that cannot be sent; its text holds the key and the signature.
        raise FailedPreconditionError(
            f"{subject}: no request to the object store can be made with these settings; check the access key and "
            "the secret key.",
            reason="STORE_SETTINGS",
        ) from None
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
    if code in _CLOCK or (status == 403 and abs(_skew_seconds(error)) > _LARGEST_SKEW_SECONDS):
        return UnavailableError(
            f"{subject}: the object store refuses requests because the clocks differ: this machine's clock is "
            f"{_difference(_skew_seconds(error))} the store's. Synchronize them (NTP).",
            reason="CLOCK_SKEW",
            retry_delay_seconds=5.0,
        )
    if code in _EXPIRED:
        return UnavailableError(
            f"{subject}: the credentials for the object store have expired ({code}); renew them.",
            reason="CREDENTIALS_EXPIRED",
            retry_delay_seconds=5.0,
        )
    if code in _REFUSED or status in (401, 403):
        return PermissionDeniedError(f"{subject}: the object store refuses the credentials ({code}).")
    if code in _CONFLICT:
        return FailedPreconditionError(
            f"{subject} cannot be written: another key lies above or below it.", reason="KEY_CONFLICT"
        )
    if status in (409, 412):
        return AbortedError(f"{subject}: a concurrent write interfered ({code}).", retry_delay_seconds=0.1)
    return UnavailableError(f"{subject}: the object store answers with {code or f'HTTP {status}'}.")


def _skew_seconds(error: S3Error) -> float:
    """How far the clock of this machine is ahead of the store's, by the date of its answer; 0 where it gives none."""
    written = error.response.headers.get("date")
    try:
        there = parsedate_to_datetime(written) if written else None
    except ValueError:
        there = None
    if there is None:
        return 0.0
    there = there if there.tzinfo is not None else there.replace(tzinfo=UTC)
    return (datetime.now(UTC) - there).total_seconds()


def _difference(skew_seconds: float) -> str:
    minutes = abs(skew_seconds) / 60
    return f"{minutes:.0f} minutes {'ahead of' if skew_seconds > 0 else 'behind'}" if minutes >= 1 else "not"


def _full(subject: str) -> ResourceExhaustedError:
    return ResourceExhaustedError(f"{subject}: the object store is full.", reason="STORAGE_FULL")
