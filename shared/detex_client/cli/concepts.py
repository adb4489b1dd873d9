"""`detex concepts`: list, show, check and delete trained concepts."""

import sys
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from detex_client.cli import options
from detex_client.cli.failure import reported
from detex_client.cli.json_document import document
from detex_client.cli.listing_group import ListingGroup
from detex_client.cli.terminal import Terminal
from detex_client.cli.verdict_display import HEADLINES, find_report, write_report
from detex_client.concept import Concept
from detex_client.errors import refused

concepts = typer.Typer(help="List (default), show and delete concepts, and save their reports.", cls=ListingGroup)

Name = Annotated[str, typer.Argument(help="Concept name, without brackets.")]
Version = Annotated[str, typer.Option("--version", help="Version.", show_default="the newest")]


@concepts.command("list")
@reported
def list_concepts(
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of concepts to list.")] = 200,
    trainer: options.TrainerAddress = options.TRAINER_ADDRESS,
    tenant: options.Tenant = options.TENANT,
    tls: options.UseTls = False,
    root_certificates: options.RootCertificates = None,
    timeout: options.Timeout = options.TIMEOUT_SECONDS,
    json_output: options.Json = False,
) -> None:
    """List concepts by name, newest version first."""
    terminal = Terminal(json_output=json_output)
    with options.open_trainer(trainer, tenant, tls, root_certificates, timeout) as client:
        found = list(islice(client.concepts(), limit))
    terminal.document({"concepts": found})
    if not found:
        terminal.say("No concepts yet. Train one with `detex train`.")
        return
    table = Table("word", "version", "class", "method", "attributes", "size", box=None, pad_edge=False)
    for concept in found:
        reference = concept.reference
        size = f"{concept.size_bytes / 1e6:.2f} MB"
        table.add_row(reference.word, reference.version, concept.class_word, concept.method, _attributes(concept), size)
    terminal.result(table)


@concepts.command("show")
@reported
def show_concept(
    name: Name,
    version: Version = "",
    trainer: options.TrainerAddress = options.TRAINER_ADDRESS,
    tenant: options.Tenant = options.TENANT,
    tls: options.UseTls = False,
    root_certificates: options.RootCertificates = None,
    timeout: options.Timeout = options.TIMEOUT_SECONDS,
    json_output: options.Json = False,
) -> None:
    """Show a concept and its words for prompts."""
    terminal = Terminal(json_output=json_output)
    with options.open_trainer(trainer, tenant, tls, root_certificates, timeout) as client:
        concept = client.concept(name, version)
        report = find_report(terminal, client, name, concept.reference.version)
    terminal.document({**document(concept), "verdict": None if report is None else report.verdict})
    reference = concept.reference
    words = [reference.word]
    words += [reference.attribute_word(each.name, index) for each in concept.attributes for index in range(each.count)]
    table = Table(box=None, show_header=False, pad_edge=False)
    for label, value in {
        "version": reference.version,
        "class": concept.class_word,
        "words": " ".join(words),
        "method": concept.method,
        "base model": f"{concept.base_model} ({concept.base_model_fingerprint[:12]})",
        "published": f"{concept.create_time.astimezone():%Y-%m-%d %H:%M:%S}",
        "size": f"{concept.size_bytes / 1e6:.2f} MB",
        "manifest": concept.manifest_sha256,
    }.items():
        table.add_row(label, value)
    if report is not None:
        table.add_row("verdict", report.summary)
        table.add_row("checkpoint", report.choice)
    terminal.result(table)


@concepts.command("report")
@reported
def report_concept(
    name: Name,
    version: Version = "",
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for report.json and report.png.", show_default=False),
    ] = None,
    trainer: options.TrainerAddress = options.TRAINER_ADDRESS,
    tenant: options.Tenant = options.TENANT,
    tls: options.UseTls = False,
    root_certificates: options.RootCertificates = None,
    timeout: options.Timeout = options.TIMEOUT_SECONDS,
    json_output: options.Json = False,
) -> None:
    """Show whether a concept is fit for use and why, and save its report with sample pictures."""
    terminal = Terminal(json_output=json_output)
    with options.open_trainer(trainer, tenant, tls, root_certificates, timeout) as client:
        report = client.concept_report(name, version)
    files = () if out is None else write_report(report, out)
    terminal.document({**document(report), "files": files})
    reference = report.reference
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_row("concept", f"{reference.word}, version {reference.version}")
    table.add_row("verdict", HEADLINES[report.verdict])
    for number, finding in enumerate(report.findings):
        table.add_row("" if number else "because", finding)
    table.add_row("checkpoint", report.choice)
    terminal.result(table)
    for path in files:
        terminal.say(f"Wrote {path}.")
    if out is None:
        terminal.say(f"Sample pictures and all metrics:  detex concepts report {name} --out FOLDER")


@concepts.command("delete")
@reported
def delete_concept(
    name: Name,
    version: Annotated[str, typer.Option("--version", help="Version.", show_default="all")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    trainer: options.TrainerAddress = options.TRAINER_ADDRESS,
    tenant: options.Tenant = options.TENANT,
    tls: options.UseTls = False,
    root_certificates: options.RootCertificates = None,
    timeout: options.Timeout = options.TIMEOUT_SECONDS,
    json_output: options.Json = False,
) -> None:
    """Delete one version of a concept, or all of them."""
    terminal = Terminal(json_output=json_output)
    if not yes:
        if not sys.stdin.isatty():
            raise refused("--yes", "nothing", "set where there is no terminal to confirm on")
        typer.confirm(f"Delete {f'version {version}' if version else 'all versions'} of {name}?", abort=True, err=True)
    with options.open_trainer(trainer, tenant, tls, root_certificates, timeout) as client:
        deleted = client.delete_concept(name, version)
    terminal.document(deleted)
    for reference in deleted.references:
        terminal.say(f"Deleted {reference.name}, version {reference.version}.")


def _attributes(concept: Concept) -> str:
    return ", ".join(f"{attribute.name} 0-{attribute.count - 1}" for attribute in concept.attributes)
