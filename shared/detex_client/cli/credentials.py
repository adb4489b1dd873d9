"""Who calls, as all commands tell the services: options before the command, or variables of the environment."""

import os
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from detex_client.connection import BearerToken, Tls

_PANEL = "Credentials"

TokenFile = Annotated[
    Path | None,
    typer.Option(
        envvar="DETEX_TOKEN_FILE",
        help="File with the bearer token that tells the services who calls. The token itself may stand in DETEX_TOKEN.",
        rich_help_panel=_PANEL,
    ),
]
ClientCertificate = Annotated[
    Path | None,
    typer.Option(
        envvar="DETEX_CLIENT_CERTIFICATE",
        help="PEM file with the certificate to show to the services.",
        rich_help_panel=_PANEL,
    ),
]
ClientKey = Annotated[
    Path | None,
    typer.Option(envvar="DETEX_CLIENT_KEY", help="PEM file with its key.", rich_help_panel=_PANEL),
]


_VARIABLES = {
    "token_file": "DETEX_TOKEN_FILE",
    "client_certificate": "DETEX_CLIENT_CERTIFICATE",
    "client_key": "DETEX_CLIENT_KEY",
}


@dataclass(frozen=True)
class Credentials:
    """What tells the services who calls.

    Attributes:
        token: The token itself; empty where there is none, or where it lies in a file.
        token_file: Where it lies.
        client_certificate: PEM file.
        client_key: PEM file.
    """

    token: str = ""
    token_file: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None

    @classmethod
    def of_environment(cls) -> "Credentials":
        """Those of the variables, for commands that are entered by themselves."""
        named = {key: os.environ.get(name) for key, name in _VARIABLES.items()}
        paths = {key: Path(value) if value else None for key, value in named.items()}
        return cls(os.environ.get("DETEX_TOKEN", "") if paths["token_file"] is None else "", **paths)

    def bearer(self) -> BearerToken | None:
        """The token, or None; raises DetexClientError where it cannot be read."""
        if self.token_file is not None:
            return BearerToken(file=self.token_file)
        return BearerToken(self.token) if self.token else None

    def tls(self, use_tls: bool, root_certificates: Path | None) -> Tls | None:
        """Encryption where it is asked for, or where a certificate is given."""
        shown = self.client_certificate is not None or self.client_key is not None
        if not (use_tls or root_certificates is not None or shown):
            return None
        return Tls(root_certificates, self.client_certificate, self.client_key)


_credentials: ContextVar[Credentials | None] = ContextVar("detex_credentials", default=None)


def use_credentials(context: typer.Context, credentials: Credentials) -> None:
    """Let the command that runs show these, until it ends."""
    before = _credentials.set(credentials)
    context.call_on_close(lambda: _credentials.reset(before))


def current_credentials() -> Credentials:
    """Those of the command that runs."""
    return _credentials.get() or Credentials.of_environment()
