"""The `detex` command."""

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
    application(prog_name="detex")
