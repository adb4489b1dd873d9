"""The certificate of a server, which may change while it serves."""

import logging
import ssl
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from detex_core.errors import FailedPreconditionError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CertificateFiles:
    """Where a server's certificate lies.

    Attributes:
        certificate: PEM file: the certificate, then those that lead to the authority.
        key: PEM file of its key, without a password.
        client_authority: PEM file with the authorities of client certificates, which every connection must show then;
            None where clients show none.
    """

    certificate: Path
    key: Path
    client_authority: Path | None = None


class ServerCertificate:
    """Credentials of a gRPC server that follow their files: a renewed certificate counts for the next connection."""

    def __init__(self, files: CertificateFiles) -> None:
        """Read them.

        Raises:
            FailedPreconditionError: A file cannot be read, or certificate and key do not belong together.
        """
        self._files = files
        self._lock = threading.Lock()
        self._seen = self._identities()
        self._configuration, self._end = self._read()

    @property
    def end_time(self) -> datetime:
        """When the certificate expires."""
        with self._lock:
            return self._end

    def credentials(self) -> grpc.ServerCredentials:
        """For `add_secure_port`."""
        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            self._configuration,
            self._fetch,  # type: ignore[arg-type]  # None keeps what there is, which the stubs do not know
            require_client_authentication=self._files.client_authority is not None,
        )
        return credentials

    def _fetch(self) -> "grpc.ServerCertificateConfiguration | None":
        """Asked at each handshake; None keeps what there is."""
        with self._lock:
            seen = self._identities()
            if seen == self._seen:
                return None
            try:
                self._configuration, self._end = self._read()
            except FailedPreconditionError as error:
                # Half-written, perhaps; the next handshake looks again.
                _log.error("the certificate was not taken over: %s", error.message)
                return None
            self._seen = seen
            _log.info("the certificate was read again; it expires at %s", self._end.isoformat())
            return self._configuration

    def _identities(self) -> tuple[tuple[int, int, int] | None, ...]:
        paths = (self._files.certificate, self._files.key, self._files.client_authority)
        return tuple(_identity(path) for path in paths if path is not None)

    def _read(self) -> tuple[grpc.ServerCertificateConfiguration, datetime]:
        certificate = _contents("tls_certificate_file", self._files.certificate)
        key = _contents("tls_key_file", self._files.key)
        authority = None
        if self._files.client_authority is not None:
            authority = _contents("tls_client_authority_file", self._files.client_authority)
        try:
            leaf = x509.load_pem_x509_certificates(certificate)[0]
        except (ValueError, IndexError):
            raise _unusable("tls_certificate_file", self._files.certificate, "holds no certificate in PEM") from None
        try:
            public = load_pem_private_key(key, None).public_key()
        except (ValueError, TypeError):
            raise _unusable("tls_key_file", self._files.key, "holds no key in PEM without a password") from None
        if public != leaf.public_key():
            raise _unusable("tls_key_file", self._files.key, "does not belong to the certificate")
        if authority is not None:
            try:
                ssl.create_default_context(cadata=authority.decode("ascii"))
            except (ssl.SSLError, ValueError):
                path = self._files.client_authority
                raise _unusable("tls_client_authority_file", path, "holds no certificate in PEM") from None
        configuration = grpc.ssl_server_certificate_configuration([(key, certificate)], authority)
        return configuration, leaf.not_valid_after_utc.astimezone(UTC)


def _contents(field: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unusable(field, path, f"cannot be read: {error.strerror}") from None


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _unusable(field: str, path: Path | None, why: str) -> FailedPreconditionError:
    return FailedPreconditionError(f"{field}: {path} {why}.", reason="CERTIFICATE_UNUSABLE")
