"""`detex version`."""

import platform
from importlib.metadata import version as installed_version

import typer

from detex_client.cli import options
from detex_client.cli.failure import reported
from detex_client.cli.terminal import Terminal


def show_version(asked: bool) -> None:
    """Print the version and exit, where the option is set."""
    if asked:
        Terminal(json_output=False).result(f"detex {installed_version('detex')}")
        raise typer.Exit


@reported
def version(json_output: options.Json = False) -> None:
    """Show versions."""
    versions = {
        "detex": installed_version("detex"),
        "python": platform.python_version(),
        "grpcio": installed_version("grpcio"),
        "protobuf": installed_version("protobuf"),
    }
    terminal = Terminal(json_output=json_output)
    terminal.document(versions)
    terminal.result("\n".join(f"{name} {number}" for name, number in versions.items()))
