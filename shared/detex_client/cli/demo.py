"""`detex demo`: from photos to pictures on this machine, end to end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from detex_client.cli import options
from detex_client.cli.failure import ExitCode, exit_code, reported, tell
from detex_client.cli.progress_display import clock
from detex_client.cli.serve import Service, base_models_setting, check_installed
from detex_client.cli.terminal import Terminal
from detex_client.demo.demonstration import Choices, Demonstration
from detex_client.demo.output_folder import OutputFolder
from detex_client.demo.summary import Summary
from detex_client.errors import DetexClientError, refused
from detex_showroom import SampleSubject, sample_subjects


@reported
def demo(
    subject: Annotated[
        list[str] | None, typer.Option(help="Sample subject (repeatable).", show_default="the first")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every sample subject.")] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.", show_default="the method's")] = None,
    drawing_steps: Annotated[
        int | None, typer.Option(min=1, help="Denoising steps.", show_default="the base model's")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed from which all other seeds are derived.")] = 0,
    out: Annotated[Path, typer.Option(help="Output folder; emptied at the start.")] = Path("out/demo"),
    base_model: Annotated[
        str | None,
        typer.Option(metavar="NAME=SOURCE", help="Base model, as for `detex serve`.", show_default="the embedded one"),
    ] = None,
    json_output: options.Json = False,
) -> None:
    """Train a sample subject and generate pictures of it: photos in, contact sheet out.

    Starts trainer and generator as local processes, uploads the photos and masks of a sample subject, trains a concept,
    generates it in six scenes, recombines poses and backgrounds of its photos, puts another product into one of them,
    and stops the services.
    """
    terminal = Terminal(json_output=json_output)
    check_installed(Service.TRAINER)
    check_installed(Service.GENERATOR)
    choices = Choices(
        subjects=_chosen(subject or [], every),
        steps=steps,
        drawing_steps=drawing_steps,
        seed=seed,
        base_models=base_models_setting([base_model]) if base_model else None,
    )
    folder = OutputFolder(out)
    demonstration = Demonstration(choices, folder, terminal)
    try:
        with _ends_on_signals():
            summary = demonstration.run()
    except KeyboardInterrupt:
        terminal.say("Interrupted; both services have been stopped.")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except DetexClientError as error:
        tell(terminal, error)
        service = demonstration.failed_service(error)
        if service is not None:
            terminal.fail(f"The log of the {service.name} ({service.log}) ends with:\n{service.log_tail()}")
        raise typer.Exit(exit_code(error)) from None
    terminal.event("summary", summary)
    _conclude(terminal, folder, summary)


def _chosen(names: list[str], every: bool) -> list[SampleSubject]:
    subjects = {subject.name: subject for subject in sample_subjects()}
    if every:
        return list(subjects.values())
    unknown = [name for name in names if name not in subjects]
    if unknown:
        raise refused("--subject", unknown[0], f"one of {', '.join(subjects)}")
    return [subjects[name] for name in names] or list(subjects.values())[:1]


@contextmanager
def _ends_on_signals() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP like Ctrl-C, so that the services are stopped too."""

    def unwind(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _conclude(terminal: Terminal, folder: OutputFolder, summary: Summary) -> None:
    terminal.say(f"Done in {clock(summary.seconds['total'])}.")
    for label, path in {
        "Contact sheet": folder.contact_sheet,
        "Pictures": folder.pictures,
        "Facts": folder.summary,
    }.items():
        terminal.result(f"{label + ':':<15}{_short(path)}")


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
