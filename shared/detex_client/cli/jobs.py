"""`detex jobs`: list, show, watch and cancel training jobs."""

from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from detex_client.cli import options
from detex_client.cli.failure import ExitCode, reported
from detex_client.cli.job_display import follow
from detex_client.cli.json_document import document
from detex_client.cli.listing_group import ListingGroup
from detex_client.cli.progress_display import clock
from detex_client.cli.terminal import Terminal
from detex_client.cli.verdict_display import find_report, say_verdict
from detex_client.concept_report import ConceptReport
from detex_client.job import Job
from detex_client.wire_enum import JobState

jobs = typer.Typer(help="List (default), show, watch and cancel training jobs.", cls=ListingGroup)

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Job id.")]


@jobs.command("list")
@reported
def list_jobs(
    state: Annotated[
        list[JobState] | None, typer.Option(help="Only jobs in this state (repeatable).", show_default=False)
    ] = None,
    concept: Annotated[str, typer.Option(help="Only jobs of this concept.", show_default=False)] = "",
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of jobs to list.")] = 50,
    trainer: options.TrainerAddress = options.TRAINER_ADDRESS,
    tenant: options.Tenant = options.TENANT,
    tls: options.UseTls = False,
    root_certificates: options.RootCertificates = None,
    timeout: options.Timeout = options.TIMEOUT_SECONDS,
    json_output: options.Json = False,
) -> None:
    """List jobs, newest first."""
    terminal = Terminal(json_output=json_output)
    with options.open_trainer(trainer, tenant, tls, root_certificates, timeout) as client:
        found = list(islice(client.jobs(states=state or [], concept_name=concept), limit))
    terminal.document({"jobs": found})
    if not found:
        terminal.say("No such jobs.")
        return
    table = Table("job", "state", "concept", "method", "steps", "submitted", "took", box=None, pad_edge=False)
    for job in found:
        steps = f"{job.progress.step}/{job.progress.total_steps}" if job.progress else ""
        submitted = f"{job.create_time.astimezone():%Y-%m-%d %H:%M}"
        table.add_row(job.job_id, job.state, job.concept_name, job.method, steps, submitted, _took(job))
    terminal.result(table)


@jobs.command("show")
@reported
def show_job(
    job_id: JobId,
    trainer: options.TrainerAddress = options.TRAINER_ADDRESS,
    tenant: options.Tenant = options.TENANT,
    tls: options.UseTls = False,
    root_certificates: options.RootCertificates = None,
    timeout: options.Timeout = options.TIMEOUT_SECONDS,
    json_output: options.Json = False,
) -> None:
    """Show a job with all its hyperparameters."""
    terminal = Terminal(json_output=json_output)
    with options.open_trainer(trainer, tenant, tls, root_certificates, timeout) as client:
        job = client.job(job_id)
        report = None if job.concept is None else find_report(terminal, client, job.concept.name, job.concept.version)
    terminal.document({**document(job), "verdict": None if report is None else report.verdict})
    terminal.result(_described(job, report))


@jobs.command("watch")
@reported
def watch_job(
    job_id: JobId,
    previews: Annotated[Path | None, typer.Option(help="Folder for preview pictures.", show_default=False)] = None,
    trainer: options.TrainerAddress = options.TRAINER_ADDRESS,
    tenant: options.Tenant = options.TENANT,
    tls: options.UseTls = False,
    root_certificates: options.RootCertificates = None,
    json_output: options.Json = False,
) -> None:
    """Follow a job until it ends. Ctrl-C stops watching; the job continues."""
    terminal = Terminal(json_output=json_output)
    with options.open_trainer(trainer, tenant, tls, root_certificates) as client:
        try:
            with terminal.progress() as progress:
                job = follow(terminal, progress, client.watch(job_id), previews)
        except KeyboardInterrupt:
            terminal.say(f"No longer watching; job {job_id} continues. Stop it with `detex jobs cancel {job_id}`.")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        concept = job.published()
        terminal.say(f"Trained {concept.word}, version {concept.version}.")
        report = find_report(terminal, client, concept.name, concept.version)
    if report is not None:
        terminal.event("report", report)
        say_verdict(terminal, report)


@jobs.command("cancel")
@reported
def cancel_job(
    job_id: JobId,
    wait: Annotated[bool, typer.Option(help="Wait until the job has stopped.")] = True,
    trainer: options.TrainerAddress = options.TRAINER_ADDRESS,
    tenant: options.Tenant = options.TENANT,
    tls: options.UseTls = False,
    root_certificates: options.RootCertificates = None,
    timeout: options.Timeout = options.TIMEOUT_SECONDS,
    json_output: options.Json = False,
) -> None:
    """Cancel a job. A job that has ended stays as it is."""
    terminal = Terminal(json_output=json_output)
    with options.open_trainer(trainer, tenant, tls, root_certificates, timeout) as client:
        job = client.cancel(job_id)
        if wait and not job.state.ended:
            terminal.say(f"Cancellation of job {job_id} was requested.")
            job = client.wait(job_id)
    terminal.document(job)
    terminal.say(
        f"Job {job_id} is {job.state}." if wait or job.state.ended else f"Cancellation of job {job_id} was requested."
    )


def _described(job: Job, report: ConceptReport | None) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    rows: dict[str, object] = {
        "job": job.job_id,
        "state": job.state,
        "concept": job.concept.name if job.concept else job.concept_name,
        "version": job.concept.version if job.concept else "",
        "verdict": report.summary if report else "",
        "checkpoint": report.choice if report else "",
        "failure": f"{job.failure.reason}: {job.failure.message}" if job.failure else "",
        "method": job.method,
        "base model": job.base_model,
        "attributes": ", ".join(job.attributes),
        "training set": job.training_set_id,
        "submitted": _moment(job.create_time),
        "started": _moment(job.start_time),
        "ended": _moment(job.end_time),
        "took": _took(job),
    }
    if job.progress is not None:
        rows["steps"] = f"{job.progress.step}/{job.progress.total_steps}"
        rows |= {f"loss: {name}": f"{loss:.5f}" for name, loss in job.progress.losses.items()}
    rows |= {name.replace("_", " "): value for name, value in job.hyperparameters.items() if name != "steps"}
    for name, value in rows.items():
        if value != "":
            table.add_row(name, str(value))
    return table


def _moment(moment: datetime | None) -> str:
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S}" if moment else ""


def _took(job: Job) -> str:
    if job.start_time is None:
        return ""
    return clock(((job.end_time or datetime.now(UTC)) - job.start_time).total_seconds())
