"""The gate that holds callers against the policy."""

import asyncio
import hashlib
import logging
import threading
from dataclasses import replace
from pathlib import Path

from detex_core.access.caller import Caller, CallerRefusedError, Certificate, Metadata, tenant_named
from detex_core.access.policy import AccessPolicy, CallerRule, load_policy
from detex_core.access.roles import Role, role_of
from detex_core.access.tokens import TokenVerifier
from detex_core.errors import FailedPreconditionError, UnauthenticatedError
from detex_core.tenancy import DEFAULT_TENANT

_SCHEME = "bearer "
_CERTIFICATE_NAMES = ("x509_subject_alternative_name", "x509_common_name")

_log = logging.getLogger(__name__)


class PolicyGate:
    """Lets in whom the policy file names. A file that changes counts from the next call on."""

    def __init__(self, path: Path) -> None:
        """Read the policy.

        Raises:
            FailedPreconditionError: It cannot be used.
        """
        self._path = path
        self._lock = threading.Lock()
        self._seen = _identity(path)
        self._policy = load_policy(path)
        self._tokens = TokenVerifier(self._policy.issuers)

    async def admit(self, method: str, metadata: Metadata, certificate: Certificate) -> Caller:
        """As `Gate`."""
        policy, tokens = self._current()
        service = method.partition("/")[0]
        if (service.startswith("grpc.health.") and policy.health == "public") or (
            service.startswith("grpc.reflection.") and policy.reflection == "public"
        ):
            return Caller("", "", DEFAULT_TENANT)
        rule, subject = await self._rule(policy, tokens, metadata, certificate)
        caller = Caller(rule.name, subject, rule.tenant)
        if not service.startswith("grpc.") and not rule.may(needed := role_of(method)):
            raise CallerRefusedError(
                f"The caller {rule.name!r} lacks the role {needed.value!r} that {method} needs.",
                caller,
                reason="ROLE_MISSING",
            )
        return replace(caller, tenant=_tenant(rule, caller, metadata))

    async def _rule(
        self,
        policy: AccessPolicy,
        tokens: TokenVerifier,
        metadata: Metadata,
        certificate: Certificate,
    ) -> tuple[CallerRule, str]:
        """The rule of whoever calls, and its subject."""
        token = _token(metadata)
        if token is not None:
            claims = tokens.known(hashlib.sha256(token.encode()).digest())
            if claims is None:
                # In a thread: keys may have to be fetched.
                claims = await asyncio.to_thread(tokens.claims, token)
            subject = str(claims["sub"])
            for rule in policy.callers:
                if rule.is_of_token(claims):
                    return rule, subject
            raise _unknown(subject)
        names = [name.decode(errors="replace") for kind in _CERTIFICATE_NAMES for name in certificate.get(kind, ())]
        if not names:
            raise UnauthenticatedError(
                "The call carries no credentials: send the header `authorization: Bearer <token>`, or connect with a "
                "client certificate.",
                reason="CREDENTIALS_MISSING",
            )
        for rule in policy.callers:
            if rule.is_of_certificate(names):
                return rule, str(rule.certificate)
        raise _unknown(names[0])

    def _current(self) -> tuple[AccessPolicy, TokenVerifier]:
        """The policy as it stands; the last one that could be used where the file has become unusable."""
        with self._lock:
            seen = _identity(self._path)
            if seen != self._seen:
                self._seen = seen
                try:
                    policy = load_policy(self._path)
                except FailedPreconditionError as error:
                    _log.error("the access policy was not taken over: %s", error.message)
                else:
                    self._policy, self._tokens = policy, TokenVerifier(policy.issuers)
                    _log.info("the access policy was read again: %d callers", len(policy.callers))
            return self._policy, self._tokens


def _token(metadata: Metadata) -> str | None:
    """The bearer token of a call, or None; raises UnauthenticatedError where the header is something else."""
    values = [value for key, value in metadata if key == "authorization"]
    if not values:
        return None
    value = values[0]
    if len(values) > 1 or not isinstance(value, str) or not value.lower().startswith(_SCHEME):
        raise UnauthenticatedError(
            "The header `authorization` must be present once, as `Bearer <token>`.", reason="TOKEN_INVALID"
        )
    return value[len(_SCHEME) :].strip()


def _unknown(subject: str) -> CallerRefusedError:
    return CallerRefusedError(
        f"The policy has no caller {subject[:80]!r}.", Caller("", subject[:200], ""), reason="CALLER_UNKNOWN"
    )


def _tenant(rule: CallerRule, caller: Caller, metadata: Metadata) -> str:
    named = tenant_named(metadata)
    if named is None or named == rule.tenant:
        return rule.tenant
    if Role.ADMIN in rule.roles:
        return named
    raise CallerRefusedError(
        f"The caller {rule.name!r} does not belong to tenant {named!r}; omit the header, or use its own tenant.",
        caller,
        reason="OTHER_TENANT",
    )


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
