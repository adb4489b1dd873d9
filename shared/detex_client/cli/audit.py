"""`detex audit`: the log of who did what."""

from pathlib import Path
from typing import Annotated

import typer

from detex_client.cli import options
from detex_client.cli.failure import reported
from detex_client.cli.terminal import Terminal
from detex_client.errors import from_domain
from detex_core.access import audit_log

audit = typer.Typer(help="Check the audit log of a service.", no_args_is_help=True)


@audit.callback()
def _group() -> None:
    """Check the audit log of a service."""


@audit.command("verify")
@reported
def verify(
    file: Annotated[Path, typer.Argument(help="The file that DETEX_AUDIT_LOG_FILE of the service names.")],
    noted_hash: Annotated[
        str, typer.Option(help="Hash that an earlier check printed: shows whether entries were cut off since.")
    ] = "",
    json_output: options.Json = False,
) -> None:
    """Check that no entry was changed, removed or inserted. Exits with 1 if one was."""
    terminal = Terminal(json_output=json_output)
    with from_domain():
        found = audit_log.verify(file, noted_hash)
    terminal.result(f"{found.lines:,} entries, unchanged. Hash of the last: {found.last_hash}")
    terminal.document({"entries": found.lines, "last_hash": found.last_hash})
