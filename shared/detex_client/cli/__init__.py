"""The `detex` command."""

import io
import os
import sys


def main() -> None:
    """Run the command line; exits the process, with the codes that `detex --help` lists."""
    try:
        from detex_client.cli.application import application
    except ModuleNotFoundError as error:
        if error.name not in ("rich", "typer"):
            raise
        sys.stderr.write(f"The detex command needs {error.name}: install it with  pip install 'detex[client]'\n")
        sys.exit(1)
    # Where a caller has closed them, Python leaves None in their place, which cannot be written to.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        # Japanese prompts on a terminal that knows no Japanese, accents where only ASCII is spoken: better an escape
        # than a stack trace after the work is done.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    application(prog_name="detex")
