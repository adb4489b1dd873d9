"""Where an object store lies, written as a URL."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from detex_core.object_store.key import is_key

ACCEPTED_URLS = "folder:///absolute/path or s3://bucket[/prefix][?endpoint=host:port][&secure=true|false][&region=name]"
_RULES = "a bucket name has 3 to 63 of a-z, 0-9, '.' and '-'; the default endpoint is s3.amazonaws.com"

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ENDPOINT = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?")
_REGION = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True)
class FolderLocation:
    """A folder of this machine, or one that several machines mount."""

    path: Path


@dataclass(frozen=True)
class S3Location:
    """A bucket of an S3 server.

    Attributes:
        bucket: Name of the bucket.
        prefix: What all keys begin with in the bucket, without slashes at the ends; may be empty.
        endpoint: Host, or host and port.
        secure: Whether to speak TLS.
        region: Region that requests are signed for.
    """

    bucket: str
    prefix: str
    endpoint: str
    secure: bool
    region: str


def parse_location(url: str) -> FolderLocation | S3Location:
    """Read the URL of an object store.

    Raises:
        ValueError: It is not such a URL; the message says what is accepted and what was received.
    """
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise _location_error(url) from None
    if parts.username is not None or parts.password is not None or "@" in parts.query:
        raise ValueError("must not contain credentials; use DETEX_S3_ACCESS_KEY and DETEX_S3_SECRET_KEY")
    if parts.scheme == "folder":
        if parts.netloc or parts.query or parts.fragment or not parts.path.startswith("/"):
            raise _location_error(url)
        return FolderLocation(Path(unquote(parts.path)))
    if parts.scheme == "s3":
        location = _s3_location(parts, pairs)
        if location is not None:
            return location
    raise _location_error(url)


def _s3_location(parts: SplitResult, pairs: list[tuple[str, str]]) -> S3Location | None:
    options = dict(pairs)
    prefix = parts.path.strip("/")
    secure = options.pop("secure", "true")
    endpoint = options.pop("endpoint", "s3.amazonaws.com")
    region = options.pop("region", "us-east-1")
    well_formed = (
        len(pairs) == len(dict(pairs))
        and not options
        and not parts.fragment
        and _BUCKET.fullmatch(parts.netloc)
        and (not prefix or is_key(prefix))
        and secure in ("true", "false")
        and _ENDPOINT.fullmatch(endpoint)
        and _REGION.fullmatch(region)
    )
    return S3Location(parts.netloc, prefix, endpoint, secure == "true", region) if well_formed else None


def _location_error(url: str) -> ValueError:
    # What stands before an `@` may be credentials, wherever somebody has put them.
    shown = url if "@" not in url else f"***@{url.rpartition('@')[2]}"
    return ValueError(f"must be {ACCEPTED_URLS}, got {shown!r}; {_RULES}")
