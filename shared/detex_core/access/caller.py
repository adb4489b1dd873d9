"""Who makes a call, once that is known."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from detex_core.errors import PermissionDeniedError
from detex_core.tenancy import DEFAULT_TENANT, TENANT_METADATA_KEY, checked_tenant

Metadata = Iterable[tuple[str, str | bytes]]
Certificate = Mapping[str, Iterable[bytes]]


@dataclass(frozen=True)
class Caller:
    """Who makes a call.

    Attributes:
        name: For logs: of the policy's rule, or empty where callers are not distinguished.
        subject: Of the token, or the name in the certificate; empty where callers are not distinguished.
        tenant: Whose concepts and jobs the call is about.
    """

    name: str
    subject: str
    tenant: str


class CallerRefusedError(PermissionDeniedError):
    """The caller is known, and may not do this.

    Attributes:
        caller: Who it is.
    """

    def __init__(self, message: str, caller: Caller, *, reason: str) -> None:
        super().__init__(message, reason=reason)
        self.caller = caller


class Gate(Protocol):
    """Lets calls in."""

    async def admit(self, method: str, metadata: Metadata, certificate: Certificate) -> Caller:
        """Who calls; nothing of the request has been parsed yet.

        Args:
            method: Full name, `package.Service/Method`.
            metadata: Of the call.
            certificate: What the connection says of the client's certificate (`auth_context`); empty without one.

        Raises:
            UnauthenticatedError: Who calls is not known.
            PermissionDeniedError: The caller may not do this.
            InvalidInputError: The name of a tenant is malformed.
            UnavailableError: Who calls cannot be found out now.
        """


class OpenGate:
    """Lets everybody in, for the tenant that the call names."""

    async def admit(self, method: str, metadata: Metadata, certificate: Certificate) -> Caller:
        """As `Gate`."""
        del certificate
        if method.startswith("grpc."):  # health and reflection, which are of no tenant
            return Caller("", "", DEFAULT_TENANT)
        return Caller("", "", tenant_named(metadata) or DEFAULT_TENANT)


def tenant_named(metadata: Metadata) -> str | None:
    """The tenant that a call names; None where it names none. Raises InvalidInputError where it is malformed."""
    values = [value for key, value in metadata if key == TENANT_METADATA_KEY]
    if not values:
        return None
    given = values[0] if len(values) == 1 else ", ".join(map(str, values))
    return checked_tenant(given if isinstance(given, str) else repr(given))
