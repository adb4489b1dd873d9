"""`detex serve`: start a service on this machine."""

import json
import os
import sys
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, NoReturn
from urllib.parse import quote

import grpc
import typer

from detex_client.cli.failure import reported
from detex_client.errors import DetexClientError, refused


class Service(StrEnum):
    """A service that can be started."""

    TRAINER = "trainer"
    GENERATOR = "generator"


# What each service imports beyond what the client needs; the first of a distribution stands for it.
_NEEDED = {
    Service.TRAINER: ("torch", "diffusers", "transformers", "safetensors", "sqlalchemy"),
    Service.GENERATOR: ("torch", "diffusers", "transformers", "safetensors"),
}

# Both services have the same defaults of their own; started here, side by side, they must differ.
_ADDRESSES = {
    Service.TRAINER: {"DETEX_LISTEN_ADDRESS": "127.0.0.1:50051", "DETEX_METRICS_ADDRESS": "127.0.0.1:9464"},
    Service.GENERATOR: {"DETEX_LISTEN_ADDRESS": "127.0.0.1:50052", "DETEX_METRICS_ADDRESS": "127.0.0.1:9465"},
}


@reported
def serve(
    service: Annotated[Service, typer.Argument(help="Service to start.")],
    listen: Annotated[
        str | None,
        typer.Option(help="gRPC listen address, host:port.", show_default="127.0.0.1:50051 or :50052"),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="HTTP listen address for metrics; empty disables them.", show_default=":9464 or :9465"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Data folder; the same for both services.", show_default="~/.local/state/detex"),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(help="SQLAlchemy URL of the trainer's job database.", show_default="SQLite in the data folder"),
    ] = None,
    base_model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SOURCE",
            help="Base model: embedded, a folder in diffusers format, store:<key prefix> or "
            "hub:<id>; may be repeated, the first is the default.",
            show_default="showroom=embedded",
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.", show_default="auto")] = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.", show_default="INFO")] = None,
) -> None:
    """Start the trainer or the generator; Ctrl-C stops it.

    The service replaces this process, so it receives signals directly and its exit code is that of this command.
    All other settings come from the environment (DETEX_*); options take precedence.
    """
    check_installed(service)
    if database is not None and service is not Service.TRAINER:
        raise refused("--database", database, "left out for the generator")
    environment = _ADDRESSES[service] | os.environ
    if listen is not None:
        environment["DETEX_LISTEN_ADDRESS"] = listen
    if metrics is not None:
        environment["DETEX_METRICS_ADDRESS"] = metrics
    if data is not None:
        environment |= data_environment(data, service)
    if database is not None:
        environment["DETEX_DATABASE_URL"] = database
    if base_model:
        environment["DETEX_BASE_MODELS"] = base_models_setting(base_model)
    if device is not None:
        environment["DETEX_DEVICE"] = device
    if log_level is not None:
        environment["DETEX_LOG_LEVEL"] = log_level
    _become(service, environment)


def data_environment(data: Path, service: str) -> dict[str, str]:
    """Settings that put all data of a service under one folder, the object store where both services look."""
    folder = data.absolute()
    return {
        "DETEX_OBJECT_STORE_URL": f"folder://{quote(str(folder / 'object_store'))}",
        "DETEX_WORK_FOLDER": str(folder / service),
    }


def base_models_setting(pairs: list[str]) -> str:
    """The setting `DETEX_BASE_MODELS` for base models given as NAME=SOURCE.

    Raises:
        DetexClientError: INVALID_ARGUMENT for one without an equals sign, a name or a source.
    """
    found = []
    for pair in pairs:
        name, equals, source = pair.partition("=")
        if not (name and equals and source):
            raise refused("--base-model", pair, "NAME=SOURCE")
        # A folder may be given as people write it; the services want it in full.
        elsewhere = source == "embedded" or source.startswith(("store:", "hub:"))
        found.append({"name": name, "source": source if elsewhere else str(_in_full(source))})
    return json.dumps(found)


def _in_full(source: str) -> Path:
    try:
        return Path(source).expanduser().absolute()
    except RuntimeError:  # there is no home folder of that name, or none at all
        raise refused("--base-model", source, "a folder without ~ here, as its home directory is unknown") from None


def check_installed(service: Service) -> None:
    """Refuse to start a service whose libraries are not there.

    Raises:
        DetexClientError: FAILED_PRECONDITION with what to install.
    """
    missing = [module for module in _NEEDED[service] if find_spec(module) is None]
    if missing:
        raise DetexClientError(
            f"The {service} needs {', '.join(missing)}: install it with  pip install 'detex[{service}]'",
            code=grpc.StatusCode.FAILED_PRECONDITION,
            reason="NOT_INSTALLED",
        )


def _become(service: Service, environment: dict[str, str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, "-m", f"detex_{service}"], environment)  # noqa: S606  no shell is meant
