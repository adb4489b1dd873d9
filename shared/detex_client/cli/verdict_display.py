"""The verdict on a concept, as commands print it."""

from pathlib import Path

import grpc

from detex_client.cli.terminal import Terminal
from detex_client.concept_report import ConceptReport
from detex_client.errors import DetexClientError, refused
from detex_client.trainer_client import TrainerClient
from detex_client.wire_enum import Verdict

HEADLINES = {
    Verdict.FIT: "Fit for use",
    Verdict.DOUBTFUL: "Check its pictures first",
    Verdict.UNFIT: "Not fit for use",
}
_NO_REPORT = {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED}
"""A concept without a report, or a trainer of an earlier version."""


def find_report(terminal: Terminal, client: TrainerClient, name: str, version: str = "") -> ConceptReport | None:
    """The report of a concept; None where it has none, or, with a warning, where it is not available now.

    Only an addition to what the caller has already: failing here must not fail the command.
    """
    try:
        return client.concept_report(name, version)
    except DetexClientError as error:
        if error.code not in _NO_REPORT:
            terminal.warn(f"The verdict on {name} is not available now: {error.message}")
        return None


def say_verdict(terminal: Terminal, report: ConceptReport) -> None:
    """Print the verdict and its reasons."""
    say = terminal.say if report.verdict is Verdict.FIT else terminal.warn
    if report.findings:
        say(f"{HEADLINES[report.verdict]}:")
        for finding in report.findings:
            terminal.say(f"  - {finding}")
    else:
        say(report.summary)
    terminal.say(report.choice)


def write_report(report: ConceptReport, folder: Path) -> tuple[Path, ...]:
    """Write report.json and report.png into a folder, which is made if missing; returns the files.

    Raises:
        DetexClientError: A file of that name is there with other content, for nothing is ever overwritten.
        OSError: The folder or a file cannot be written.
    """
    named = {folder / "report.json": report.report_json, folder / "report.png": report.report_png}
    files = {path: data for path, data in named.items() if data}
    for path, data in files.items():
        if path.exists() and path.read_bytes() != data:
            raise refused("--out", f"one with a different {path.name}", f"a folder without a {path.name}")
    folder.mkdir(parents=True, exist_ok=True)
    for path, data in files.items():
        path.write_bytes(data)
    return tuple(files)
