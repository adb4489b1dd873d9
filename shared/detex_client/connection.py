"""A channel to one of the services: address, tenant, encryption, deadlines, retries, health."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from detex_client.background_call import Answer, answer_of
from detex_client.errors import DetexClientError, refused, translated
from detex_core.channel import client_options, is_on_this_machine, proxy_variable
from detex_core.settings_text import AROUND_VALUES
from detex_core.tenancy import DEFAULT_TENANT, TENANT_METADATA_KEY

DEFAULT_TIMEOUT_SECONDS = 30.0
HEALTH_POLL_SECONDS = 0.1

Request = TypeVar("Request")


@dataclass(frozen=True)
class Tls:
    """Encryption of a connection.

    Attributes:
        root_certificates: PEM file with the authorities to trust; None trusts those that gRPC ships with.
        client_certificate: PEM file with the certificate to show, where the service asks for one.
        client_key: PEM file with its key.
        server_name: Name to expect in the service's certificate, where it differs from the address.
    """

    root_certificates: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    server_name: str = ""


class BearerToken:
    """A token that tells the services who calls; never shown in messages.

    Args:
        token: The token itself.
        file: Where it lies in place of that; read again when the file changes, as rotated tokens do.

    Raises:
        DetexClientError: INVALID_ARGUMENT where both or neither are given, or the token is not one line.
    """

    def __init__(self, token: str = "", *, file: Path | None = None) -> None:
        if bool(token) == (file is not None):
            raise refused("token", "both or neither", "a token, or a file that holds it")
        self._file = file
        self._token = token.strip(AROUND_VALUES)
        self._seen: tuple[int, int, int] | None = None
        self.read()

    def __repr__(self) -> str:
        return "BearerToken(...)"

    def read(self) -> str:
        """The token as it stands; raises DetexClientError where it cannot be read."""
        if self._file is not None:
            try:
                status = self._file.stat()
                seen = (status.st_mtime_ns, status.st_size, status.st_ino)
                if seen != self._seen:
                    self._token = self._file.read_text(encoding="ascii").strip(AROUND_VALUES)
                    self._seen = seen
            except OSError as error:
                raise refused("token_file", f"{self._file} ({error.strerror})", "a readable file") from None
            except UnicodeDecodeError:
                raise refused("token_file", f"{self._file}, which is no text", "a file that holds a token") from None
        if not (_is_line(self._token) and self._token.isascii() and " " not in self._token):
            raise refused("token", "something else", "one line of ASCII without spaces")
        return self._token


class Connection:
    """A lazy channel to one service. Opens no socket before the first call; close it or use it as a context manager.

    Args:
        service: What it is in messages, `trainer` or `generator`.
        contract: Full name of the gRPC service, for example `detex.v1.TrainerService`.
        safe_to_repeat: Methods that are retried when the service does not answer, with growing pauses.
        address: `host:port`. As the tenant, it may come from a file: line ends and blanks around it do not count.
        tenant: Sent along with every call.
        tls: None speaks plain text, which is meant for loopback and for inside a cluster.
        timeout_seconds: Deadline of every call that names none, above 0.
        token: Tells the service who calls; None where it does not ask.

    Raises:
        DetexClientError: INVALID_ARGUMENT for an address, a tenant or a token that no call can carry, for an unreadable
            certificate, and for a token that would cross a network in plain text.
    """

    def __init__(
        self,
        *,
        service: str,
        contract: str,
        safe_to_repeat: tuple[str, ...],
        address: str,
        tenant: str,
        tls: Tls | None,
        timeout_seconds: float,
        token: BearerToken | None = None,
    ) -> None:
        address, tenant = address.strip(AROUND_VALUES), tenant.strip(AROUND_VALUES)
        if not address:
            raise refused("address", "an empty string", "host:port")
        if not _is_line(address):
            raise refused("address", repr(address), "host:port")
        if not (_is_line(tenant) and tenant.isascii()):
            raise refused("tenant", repr(tenant), "1 to 63 of a-z, 0-9 and hyphens, beginning with a letter or a digit")
        if not timeout_seconds > 0:
            raise refused("timeout_seconds", timeout_seconds, "a number above 0")
        self.peer = f"{service} at {address}"
        proxy = proxy_variable(address)
        if proxy:
            self.peer += f" through the proxy of {proxy}"
        self.timeout_seconds = timeout_seconds
        if token is not None and tls is None and not is_on_this_machine(address):
            raise refused("tls", f"none, and a token for {address}", "given, or the token would travel in the clear")
        self._token = token
        # The service knows the tenant of a caller with credentials; the default one is what no header means.
        self._tenant = () if tenant == DEFAULT_TENANT else ((TENANT_METADATA_KEY, tenant),)
        options: list[tuple[str, int | str]] = [
            *client_options(address),
            ("grpc.service_config", _service_config(contract, safe_to_repeat)),
        ]
        if tls is None:
            self.channel = grpc.insecure_channel(address, options)
        else:
            if tls.server_name:
                options.append(("grpc.ssl_target_name_override", tls.server_name))
            self.channel = grpc.secure_channel(address, _credentials(tls), options)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes along with every call: the tenant, and the token as it stands."""
        if self._token is None:
            return self._tenant
        return (*self._tenant, ("authorization", f"Bearer {self._token.read()}"))

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn failed calls inside the block into DetexClientError."""
        with translated(self.peer):
            yield

    def unary(
        self, method: "grpc.UnaryUnaryMultiCallable[Request, Answer]", request: Request, timeout_seconds: float = 0
    ) -> Answer:
        """Call a method that takes one message and gives one; the deadline is the connection's where none is given.

        Raises:
            DetexClientError: The call failed.
        """
        with self.errors():
            timeout = timeout_seconds or self.timeout_seconds
            return answer_of(lambda: method(request, timeout=timeout, metadata=self.metadata))

    def wait_until_serving(self, timeout_seconds: float) -> None:
        """Wait until the service reports itself healthy.

        Raises:
            DetexClientError: UNAVAILABLE when the time is over.
        """
        deadline = time.monotonic() + timeout_seconds
        while not self.serving(max(deadline - time.monotonic(), HEALTH_POLL_SECONDS)):
            if time.monotonic() >= deadline:
                raise DetexClientError(
                    f"The {self.peer} was not ready within {timeout_seconds:.0f} seconds.",
                    code=grpc.StatusCode.UNAVAILABLE,
                    reason="NOT_SERVING",
                )
            time.sleep(HEALTH_POLL_SECONDS)

    def serving(self, timeout_seconds: float | None = None) -> bool:
        """Whether the service answers and reports itself healthy."""
        # The published type stubs leave out the methods of this one.
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        try:
            timeout = timeout_seconds or self.timeout_seconds
            answer = answer_of(lambda: stub.Check(health_pb2.HealthCheckRequest(), timeout=timeout))
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def close(self) -> None:
        """Close the channel; calls under way are cancelled."""
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_line(text: str) -> bool:
    """Whether a text is one line of characters that can be sent."""
    return bool(text) and text.isprintable()


def _service_config(contract: str, safe_to_repeat: tuple[str, ...]) -> str:
    """Service config of gRPC: all addresses of a name in turn, and calls that are safe to repeat are (gRFC A6).

    They are repeated as long as nothing has come back yet.
    """
    retry = {
        "maxAttempts": 4,
        "initialBackoff": "0.2s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    names = [{"service": contract, "method": method} for method in safe_to_repeat]
    return json.dumps(
        {"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [{"name": names, "retryPolicy": retry}]}
    )


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    if (tls.client_certificate is None) != (tls.client_key is None):
        raise refused("tls.client_certificate", "only one", "given together with tls.client_key, or not at all")
    return grpc.ssl_channel_credentials(
        root_certificates=_pem("tls.root_certificates", tls.root_certificates),
        private_key=_pem("tls.client_key", tls.client_key),
        certificate_chain=_pem("tls.client_certificate", tls.client_certificate),
    )


def _pem(field: str, path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise refused(field, f"{path} ({error.strerror})", "a readable PEM file") from None
    if b"-----BEGIN " not in data:
        raise refused(field, f"{path}, which has no PEM block", "a PEM file")
    return data
