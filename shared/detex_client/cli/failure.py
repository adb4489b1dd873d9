"""Exit codes and error output."""

from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from typing import ParamSpec

import grpc
import typer

from detex_client.cli.terminal import Terminal
from detex_client.errors import DetexClientError
from detex_client.job import JobEndedError

Parameters = ParamSpec("Parameters")


class ExitCode(IntEnum):
    """Exit codes of the command."""

    OK = 0
    FAILED = 1
    INVALID_INPUT = 2
    NOT_FOUND = 3
    UNAVAILABLE = 4
    JOB_ENDED = 5
    INTERRUPTED = 130


EXIT_CODES = (
    "Exit codes: 0 success; 1 failure; 2 wrong usage or input; 3 not found; 4 service unavailable, overloaded or too "
    "slow, try again later; 5 the job failed or was cancelled; 130 interrupted."
)

_BY_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: ExitCode.INVALID_INPUT,
    grpc.StatusCode.OUT_OF_RANGE: ExitCode.INVALID_INPUT,
    grpc.StatusCode.NOT_FOUND: ExitCode.NOT_FOUND,
    grpc.StatusCode.UNAVAILABLE: ExitCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ExitCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExitCode.UNAVAILABLE,
}


def exit_code(error: DetexClientError) -> ExitCode:
    """The exit code of a command that ends with this error."""
    if isinstance(error, JobEndedError):
        return ExitCode.JOB_ENDED
    return _BY_STATUS.get(error.code, ExitCode.FAILED)


def tell(terminal: Terminal, error: DetexClientError) -> None:
    """Print the error and a hint; with `--json`, also print the document `{"error": ...}`."""
    terminal.fail(error.message)
    if error.code is grpc.StatusCode.UNAVAILABLE and error.reason == error.code.name:
        terminal.say("Start a service with `detex serve trainer` or `detex serve generator`, or give its address.")
    if error.retry_delay_seconds is not None:
        terminal.say(f"Try again in {error.retry_delay_seconds:g} seconds.")
    terminal.event("error", {"error": as_document(error)})


def as_document(error: DetexClientError) -> dict[str, object]:
    """The error as a JSON object."""
    return {
        "code": error.code.name,
        "reason": error.reason,
        "message": error.message,
        "violations": error.violations,
        "retry_delay_seconds": error.retry_delay_seconds,
    }


def reported(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Give a command its exit codes: errors are printed, never a stack trace."""

    @wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except DetexClientError as error:
            tell(Terminal(json_output=bool(kwargs.get("json_output"))), error)
            raise typer.Exit(exit_code(error)) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            Terminal(json_output=False).fail(f"{error.strerror}: {error.filename}" if error.filename else str(error))
            raise typer.Exit(ExitCode.FAILED) from None
        except KeyboardInterrupt:
            Terminal(json_output=False).say("Interrupted.")
            raise typer.Exit(ExitCode.INTERRUPTED) from None

    return run
