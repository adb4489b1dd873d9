"""`detex studio`: the web page on this machine."""

import os
import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from detex_client.cli import options

_NEEDED = ("jinja2", "python_multipart", "starlette", "uvicorn")

studio = typer.Typer(
    help="Serve a web page for people: photos in, pictures out.",
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
)


@studio.callback(invoke_without_command=True)
def serve_studio(
    listen: Annotated[
        str | None, typer.Option(help="Address of the page, host:port.", show_default="127.0.0.1:8080")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Folder for pictures and favourites.", show_default="~/.local/state/detex/studio"),
    ] = None,
    trainer: options.TrainerAddress = options.TRAINER_ADDRESS,
    generator: options.GeneratorAddress = options.GENERATOR_ADDRESS,
    tenant: options.Tenant = options.TENANT,
    use_tls: options.UseTls = False,
    root_certificates: options.RootCertificates = None,
) -> None:
    """Serve a web page for people: photos in, pictures out. Prints its address; Ctrl-C ends it.

    All other settings come from the environment (DETEX_STUDIO_*); options win over it.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        sys.stderr.write(f"Error: detex studio needs {', '.join(missing)}: pip install 'detex[studio]'\n")
        raise typer.Exit(1)
    from detex_studio.server import main

    values = {
        "DETEX_STUDIO_LISTEN_ADDRESS": listen,
        "DETEX_STUDIO_DATA_FOLDER": data,
        "DETEX_TRAINER_ADDRESS": trainer,
        "DETEX_GENERATOR_ADDRESS": generator,
        "DETEX_TENANT": tenant,
        "DETEX_TLS": "true" if use_tls else None,
        "DETEX_ROOT_CERTIFICATES": None if root_certificates is None else str(root_certificates),
    }
    os.environ.update({name: value for name, value in values.items() if value is not None})
    main()
