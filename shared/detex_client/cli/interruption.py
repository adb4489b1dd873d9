"""Ctrl-C: deferred where work must not be interrupted, and turned into a clean cancellation of a job."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import grpc
import typer

from detex_client.cli.failure import ExitCode
from detex_client.cli.job_display import follow
from detex_client.cli.terminal import Terminal
from detex_client.errors import DetexClientError
from detex_client.trainer_client import TrainerClient
from detex_client.wire_enum import JobState


@contextmanager
def held_back() -> Iterator[None]:
    """Defer Ctrl-C until the block is done, then raise KeyboardInterrupt; a second one exits at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        if pending:
            os._exit(ExitCode.INTERRUPTED)
        pending.append(number)

    previous = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if pending:
        raise KeyboardInterrupt


def cancel_and_leave(terminal: Terminal, client: TrainerClient, job_id: str) -> NoReturn:
    """Cancel a job, wait until it has stopped, report it and exit with 130; a second Ctrl-C exits at once."""
    terminal.say(f"Interrupted: cancelling job {job_id}. Press Ctrl-C again to exit at once.")
    try:
        client.cancel(job_id)
        with terminal.progress() as progress:
            job = follow(terminal, progress, client.watch(job_id))
    except KeyboardInterrupt:
        terminal.say(f"Exited; cancellation of the job was requested. Check it with `detex jobs show {job_id}`.")
        terminal.flush()
        os._exit(ExitCode.INTERRUPTED)
    except DetexClientError as error:
        if error.code is grpc.StatusCode.NOT_FOUND:
            raise
        terminal.fail(f"The job may still be running: {error.message} Cancel it with `detex jobs cancel {job_id}`.")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if job.state is JobState.CANCELLED:
        terminal.say(f"Job {job_id} was cancelled.")
    else:
        terminal.say(f"Job {job_id} had {job.state} before it could be cancelled.")
    raise typer.Exit(ExitCode.INTERRUPTED)
