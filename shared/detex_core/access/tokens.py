"""Bearer tokens: JSON Web Tokens (RFC 7519) signed by an issuer of the policy."""

import hashlib
import json
import threading
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from detex_core.access.policy import Issuer
from detex_core.errors import UnauthenticatedError, UnavailableError

LONGEST_TOKEN = 8_000
"""Characters; gRPC takes no longer headers by default."""

_KEPT = 1_024
_MOST_KEYS_BYTES = 1_000_000
_FETCH_SECONDS = 5.0


@dataclass(frozen=True, eq=False)
class _Verified:
    """A token that was verified, until when that counts, and by whose keys."""

    claims: Mapping[str, Any]
    end: float
    keys: "_Keys"


class TokenVerifier:
    """Verifies tokens; safe to use from several threads. Blocks where keys have to be read."""

    def __init__(self, issuers: tuple[Issuer, ...]) -> None:
        """Believe these issuers."""
        self._issuers = {issuer.issuer: (issuer, _keys_of(issuer)) for issuer in issuers}
        self._lock = threading.Lock()
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()

    def claims(self, token: str) -> Mapping[str, Any]:
        """The claims of a token that was signed by an issuer of the policy, for this service, and has not expired.

        Raises:
            UnauthenticatedError: It is none.
            UnavailableError: The keys of its issuer cannot be read now.
        """
        if len(token) > LONGEST_TOKEN:
            raise _refused(f"the token has {len(token):,} characters; at most {LONGEST_TOKEN:,} are read")
        digest = hashlib.sha256(token.encode()).digest()
        known = self.known(digest)
        if known is not None:
            return known
        verified = self._verify(token)
        with self._lock:
            self._verified[digest] = verified
            while len(self._verified) > _KEPT:
                self._verified.popitem(last=False)
        return verified.claims

    def known(self, digest: bytes) -> Mapping[str, Any] | None:
        """The claims of a token that was verified a moment ago, by its SHA-256; None where it was not."""
        with self._lock:
            found = self._verified.get(digest)
            if found is not None and (time.time() >= found.end or found.keys.have_changed()):
                del self._verified[digest]
                return None
            return None if found is None else found.claims

    def _verify(self, token: str) -> "_Verified":
        try:
            header = jwt.get_unverified_header(token)
            named = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise _refused("the token is no JSON Web Token") from None
        issuer, keys = self._issuers.get(named if isinstance(named, str) else "", (None, None))
        if issuer is None or keys is None:
            raise _refused("the token is of another issuer")
        algorithm = header.get("alg")
        if algorithm not in issuer.algorithms:
            raise _refused(f"the token is not signed by {' or '.join(issuer.algorithms)}")
        key = keys.key(header.get("kid"), str(algorithm))
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[str(algorithm)],
                audience=issuer.audience,
                issuer=issuer.issuer,
                leeway=issuer.leeway_seconds,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise UnauthenticatedError(
                "The token has expired; get a new one from its issuer.", reason="TOKEN_EXPIRED"
            ) from None
        except jwt.InvalidAudienceError:
            raise _refused("the token is for another audience") from None
        except jwt.ImmatureSignatureError:
            raise _refused("the token is not valid yet") from None
        except jwt.MissingRequiredClaimError as error:
            raise _refused(f"the token lacks the claim {error.claim}") from None
        except (jwt.PyJWTError, ValueError, TypeError):
            raise _refused("the signature of the token does not fit") from None
        # A key that its issuer withdraws counts no more after a while.
        end = min(float(claims["exp"]) + issuer.leeway_seconds, time.time() + issuer.keys_seconds)
        return _Verified(claims, end, keys)


class _Keys(ABC):
    """The public keys of an issuer."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._lock = threading.Lock()
        self._set: jwt.PyJWKSet | None = None

    def key(self, identifier: object, algorithm: str) -> Any:
        """The key of a token's header, fit for its algorithm.

        Raises:
            UnauthenticatedError: There is none.
            UnavailableError: The keys cannot be read now.
        """
        with self._lock:
            for again in (False, True):
                self._refresh(again=again)
                found = self._find(identifier, algorithm)
                if found is not None:
                    return found
        raise _refused("the token is signed by a key that its issuer does not publish")

    def _find(self, identifier: object, algorithm: str) -> Any:
        keys = [] if self._set is None else self._set.keys
        fitting = [
            key
            for key in keys
            if key.public_key_use in (None, "sig") and key.key_type != "oct" and key.algorithm_name == algorithm
        ]
        if identifier is None:
            return fitting[0].key if len(fitting) == 1 else None
        return next((key.key for key in fitting if key.key_id == identifier), None)

    def _read(self, data: bytes) -> None:
        try:
            content = json.loads(data)
            # Keys for a shared secret would let whoever knows them make tokens.
            content["keys"] = [key for key in content["keys"] if key.get("kty") in ("RSA", "EC", "OKP")]
            self._set = jwt.PyJWKSet.from_dict(content)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, jwt.PyJWTError):
            raise self._unreadable("they are no JSON Web Key Set with a key for signatures") from None

    def have_changed(self) -> bool:
        """Whether it is known, without reading them, that there are others by now."""
        return False

    @abstractmethod
    def _refresh(self, *, again: bool) -> None:
        """Read the keys where that is due; `again` where a key was not among those that there are."""

    def _unreadable(self, why: str) -> UnavailableError:
        return UnavailableError(f"The keys of the token's issuer cannot be read: {why}.", reason="KEYS_UNAVAILABLE")


class _FileKeys(_Keys):
    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    def _refresh(self, *, again: bool) -> None:
        del again
        try:
            seen = self._identity()
            if seen != self._seen:
                self._read(self._path.read_bytes()[:_MOST_KEYS_BYTES])
                self._seen = seen
        except OSError as error:
            raise self._unreadable(str(error.strerror)) from None

    def have_changed(self) -> bool:
        """As in the base class."""
        try:
            return self._identity() != self._seen
        except OSError:
            return True

    def _identity(self) -> tuple[int, int, int]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino


class _UrlKeys(_Keys):
    def __init__(self, url: str, seconds: float) -> None:
        super().__init__(url)
        self._url = url
        self._seconds = seconds
        self._read_time = float("-inf")
        self._tried_time = float("-inf")

    def _refresh(self, *, again: bool) -> None:
        age = time.monotonic() - self._read_time
        # A flood of tokens with unknown keys must not become a flood of requests to the issuer.
        if age < self._seconds and not (again and time.monotonic() - self._tried_time > 10.0):
            return
        self._tried_time = time.monotonic()
        try:
            self._read(_fetched(self._url))
            self._read_time = time.monotonic()
        except OSError as error:
            if self._set is None:
                raise self._unreadable(type(error).__name__) from None


def _fetched(url: str) -> bytes:
    import urllib.request

    request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 - checked in the policy
    with urllib.request.urlopen(request, timeout=_FETCH_SECONDS) as answer:  # noqa: S310
        return bytes(answer.read(_MOST_KEYS_BYTES))


def _keys_of(issuer: Issuer) -> _Keys:
    if issuer.keys_file is not None:
        return _FileKeys(issuer.keys_file)
    return _UrlKeys(str(issuer.keys_url), issuer.keys_seconds)


def _refused(why: str) -> UnauthenticatedError:
    return UnauthenticatedError(f"The token is invalid: {why}.", reason="TOKEN_INVALID")
