"""All commands of `detex`, including those that other packages add."""

import os
from importlib.metadata import entry_points
from typing import Annotated, Final

import typer

from detex_client.cli.audit import audit
from detex_client.cli.base_models import base_models
from detex_client.cli.concepts import concepts
from detex_client.cli.credentials import ClientCertificate, ClientKey, Credentials, TokenFile, use_credentials
from detex_client.cli.demo import demo
from detex_client.cli.failure import EXIT_CODES
from detex_client.cli.generate import generate
from detex_client.cli.jobs import jobs
from detex_client.cli.masks import masks
from detex_client.cli.methods import methods
from detex_client.cli.photos import photos
from detex_client.cli.segmenter import segmenter
from detex_client.cli.serve import serve
from detex_client.cli.train import train
from detex_client.cli.version import show_version, version

COMMANDS: Final = "detex.commands"
"""Group of entry points; each gives a group of commands, a `typer.Typer`, under its name."""

application = typer.Typer(
    help="Train a concept from a few photos of a product and generate new pictures of it.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


@application.callback()
def common(
    context: typer.Context,
    version_asked: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=show_version)
    ] = False,
    token_file: TokenFile = None,
    client_certificate: ClientCertificate = None,
    client_key: ClientKey = None,
) -> None:
    """Train a concept from a few photos of a product and generate new pictures of it."""
    token = os.environ.get("DETEX_TOKEN", "") if token_file is None else ""
    use_credentials(context, Credentials(token, token_file, client_certificate, client_key))


application.command()(train)
application.command()(generate)
application.add_typer(jobs, name="jobs")
application.add_typer(concepts, name="concepts")
application.add_typer(photos, name="photos")
application.command()(masks)
application.add_typer(segmenter, name="segmenter")
application.command()(methods)
application.command("base-models")(base_models)
application.command()(serve)
application.command()(demo)
application.add_typer(audit, name="audit")
application.command()(version)
for found in entry_points(group=COMMANDS):
    application.add_typer(found.load(), name=found.name)
