"""Options shared by several commands."""

from pathlib import Path
from typing import Annotated

import typer

from detex_client import generator_client, trainer_client
from detex_client.cli.credentials import current_credentials
from detex_client.connection import DEFAULT_TIMEOUT_SECONDS
from detex_client.generator_client import GeneratorClient
from detex_client.trainer_client import TrainerClient
from detex_core.tenancy import DEFAULT_TENANT

_CONNECTION = "Connection"

TrainerAddress = Annotated[
    str,
    typer.Option(
        "--trainer", envvar="DETEX_TRAINER_ADDRESS", help="Trainer address, host:port.", rich_help_panel=_CONNECTION
    ),
]
GeneratorAddress = Annotated[
    str,
    typer.Option(
        "--generator",
        envvar="DETEX_GENERATOR_ADDRESS",
        help="Generator address, host:port.",
        rich_help_panel=_CONNECTION,
    ),
]
Tenant = Annotated[
    str,
    typer.Option(
        "--tenant", envvar="DETEX_TENANT", help="Tenant whose concepts and jobs to use.", rich_help_panel=_CONNECTION
    ),
]
UseTls = Annotated[
    bool,
    typer.Option("--tls", envvar="DETEX_TLS", help="Use TLS instead of plain text.", rich_help_panel=_CONNECTION),
]
RootCertificates = Annotated[
    Path | None,
    typer.Option(
        "--root-certificates",
        envvar="DETEX_ROOT_CERTIFICATES",
        help="PEM file with trusted root certificates; implies --tls.",
        rich_help_panel=_CONNECTION,
    ),
]
Timeout = Annotated[
    float,
    typer.Option("--timeout", min=0.1, help="Timeout per call in seconds.", rich_help_panel=_CONNECTION),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to standard output.")]

TRAINER_ADDRESS = trainer_client.DEFAULT_ADDRESS
GENERATOR_ADDRESS = generator_client.DEFAULT_ADDRESS
TENANT = DEFAULT_TENANT
TIMEOUT_SECONDS = DEFAULT_TIMEOUT_SECONDS


def open_trainer(
    address: str, tenant: str, use_tls: bool, root_certificates: Path | None, timeout_seconds: float = TIMEOUT_SECONDS
) -> TrainerClient:
    """A client of the trainer that the options name."""
    shown = current_credentials()
    tls, token = shown.tls(use_tls, root_certificates), shown.bearer()
    return TrainerClient(address, tenant, tls=tls, timeout_seconds=timeout_seconds, token=token)


def open_generator(
    address: str, tenant: str, use_tls: bool, root_certificates: Path | None, timeout_seconds: float = TIMEOUT_SECONDS
) -> GeneratorClient:
    """A client of the generator that the options name."""
    shown = current_credentials()
    tls, token = shown.tls(use_tls, root_certificates), shown.bearer()
    return GeneratorClient(address, tenant, tls=tls, timeout_seconds=timeout_seconds, token=token)
