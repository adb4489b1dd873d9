"""The gate and the certificate of a service, by its settings; refuses to serve a network without them."""

import logging
from typing import TYPE_CHECKING

from detex_core.access.audit_log import AuditLog
from detex_core.access.caller import Gate, OpenGate
from detex_core.channel import is_loopback
from detex_core.errors import FailedPreconditionError
from detex_core.settings import ServiceSettings

if TYPE_CHECKING:
    from detex_core.access.server_certificate import ServerCertificate

_log = logging.getLogger(__name__)


def open_gate(settings: ServiceSettings) -> Gate:
    """Who is let in: whom the policy names, or everybody where there is none.

    Raises:
        FailedPreconditionError: The policy cannot be used, or the service would listen on a network without a policy or
            without encryption and was not told that this is meant.
    """
    encrypted = settings.tls_certificate_file is not None
    missing = [
        *(() if encrypted else ("tls_certificate_file and tls_key_file",)),
        *(() if settings.access_policy_file is not None else ("access_policy_file",)),
    ]
    if missing and not is_loopback(settings.listen_address):
        if not settings.insecure:
            raise FailedPreconditionError(
                f"listen_address: {settings.listen_address} can be reached from the network without "
                f"{' and '.join(missing)}: set them, listen on 127.0.0.1, or set DETEX_INSECURE=true where something "
                "else (a service mesh, a network of its own) sees to encryption and callers.",
                reason="INSECURE",
            )
        _log.warning("insecure: listening on %s without %s", settings.listen_address, " and ".join(missing))
    if settings.access_policy_file is None:
        return OpenGate()
    # Libraries of tokens and certificates are loaded only where they are used: services start often.
    from detex_core.access.policy_gate import PolicyGate

    return PolicyGate(settings.access_policy_file)


def open_certificate(settings: ServiceSettings) -> "ServerCertificate | None":
    """The certificate of the service; None where it speaks plain text.

    Raises:
        FailedPreconditionError: It cannot be used.
    """
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        return None
    from detex_core.access.server_certificate import CertificateFiles, ServerCertificate

    files = CertificateFiles(settings.tls_certificate_file, settings.tls_key_file, settings.tls_client_authority_file)
    return ServerCertificate(files)


def open_audit_log(settings: ServiceSettings) -> AuditLog | None:
    """Where calls are noted; None where they are not.

    Raises:
        FailedPreconditionError: It cannot be written.
    """
    return None if settings.audit_log_file is None else AuditLog(settings.audit_log_file)
