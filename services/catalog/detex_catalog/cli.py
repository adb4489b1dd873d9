"""`detex catalog`: run, check and report."""

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer
from pydantic import ValidationError

from detex_catalog.exit_codes import EXIT_CODES, ExitCode
from detex_client import DetexClientError, TrainerClient
from detex_client.cli import options

if TYPE_CHECKING:
    from detex_catalog.checks.unsafe import UnsafeDetector
    from detex_catalog.session import Request
    from detex_catalog.sharding import Shard

Parameters = ParamSpec("Parameters")

_NEEDED = ("imagehash", "jinja2", "polars")

catalog = typer.Typer(
    help="Generate and check the pictures of a whole catalog from a table.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)

File = Annotated[Path, typer.Argument(metavar="FILE", help="Catalog table: CSV, JSONL or Parquet.")]
Out = Annotated[Path, typer.Option("--out", help="Output folder for pictures, journal and report.")]
Encoding = Annotated[str, typer.Option(help="Encoding of CSV and JSONL, for example cp932 from Excel in Japan.")]
ShardText = Annotated[
    str,
    typer.Option(
        "--shard",
        envvar="DETEX_CATALOG_SHARD",
        metavar="I/N",
        help="Process shard I (from 0) of N; N alone takes I from JOB_COMPLETION_INDEX.",
    ),
]


def main() -> None:
    """Run the command line of `detex-catalog`."""
    catalog(prog_name="detex-catalog")


def _fail(code: ExitCode, text: str) -> typer.Exit:
    sys.stderr.write(f"Error: {text}\n")
    return typer.Exit(int(code))


def _reported(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """Give a command its exit codes: errors are printed, never a stack trace."""

    @wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        missing = [name for name in _NEEDED if find_spec(name) is None]
        if missing:
            said = f"detex catalog needs {', '.join(missing)}: install it with  pip install 'detex[catalog]'"
            raise _fail(ExitCode.INPUT_AT_FAULT, said)
        from detex_catalog.checks.unsafe import DetectorMissingError
        from detex_catalog.run.catalog_run import ServicesAwayError
        from detex_catalog.run.journal import FolderUnusableError
        from detex_catalog.table.faults import CatalogFaultsError
        from detex_core.errors import DetexError

        try:
            command(*args, **kwargs)
        except CatalogFaultsError as error:
            for fault in error.faults:
                sys.stderr.write(f"{fault}\n")
            raise _fail(
                ExitCode.INPUT_AT_FAULT, f"{len(error.faults)} errors in the catalog; nothing was started"
            ) from None
        except ValidationError as error:
            said = "; ".join(f"--{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
            raise _fail(ExitCode.INPUT_AT_FAULT, said.replace("_", "-")) from None
        except (DetectorMissingError, DetexError) as error:
            raise _fail(ExitCode.INPUT_AT_FAULT, str(error)) from None
        except (DetexClientError, ServicesAwayError) as error:
            raise _fail(ExitCode.SERVICES_AWAY, str(error)) from None
        except FolderUnusableError as error:
            raise _fail(ExitCode.FOLDER_UNUSABLE, str(error)) from None

    return run


@catalog.command()
@_reported
def run(
    file: File,
    out: Out,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Estimate work, time and cost; start nothing.")] = False,
    encoding: Encoding = "utf-8",
    shard: ShardText = "",
    min_likeness: Annotated[
        float, typer.Option(help="Minimum likeness to the product's photos, 0 to 1; 0 disables the check.")
    ] = 0.7,
    min_contrast: Annotated[
        float, typer.Option(help="Minimum contrast, 0 to 0.5; pictures below it count as blank.")
    ] = 0.03,
    min_duplicate_distance: Annotated[
        int,
        typer.Option(
            help="Minimum Hamming distance between hashes of a product's pictures, of 64 bits; 0 disables the check."
        ),
    ] = 4,
    unsafe_check: Annotated[str, typer.Option(help="Detector of unsafe pictures: off or nudenet.")] = "off",
    max_unsafe: Annotated[float, typer.Option(help="Maximum probability of an unsafe body part.")] = 0.5,
    max_redraws: Annotated[int, typer.Option(help="Maximum retries of a picture that fails a check.")] = 3,
    training_jobs: Annotated[int, typer.Option(help="Concurrent training jobs.")] = 8,
    streams: Annotated[int, typer.Option(help="Concurrent streams to the generators.")] = 1,
    patience: Annotated[float, typer.Option(help="How long a service may be unavailable, in seconds.")] = 300.0,
    drain: Annotated[
        float, typer.Option(help="How long to wait for pictures in progress on SIGTERM, in seconds.")
    ] = 10.0,
    price_per_gpu_hour: Annotated[
        float | None, typer.Option(min=0, help="Price for the cost estimate of --dry-run.")
    ] = None,
    gpus: Annotated[int, typer.Option(min=1, help="Number of GPUs paid for, for the cost estimate of --dry-run.")] = 1,
    metrics_file: Annotated[
        Path | None, typer.Option(help="Write metrics for the node exporter's textfile collector, *.prom.")
    ] = None,
    metrics_address: Annotated[str, typer.Option(help="Serve metrics over HTTP during the run, host:port.")] = "",
    review_is_good: Annotated[
        bool, typer.Option("--review-is-good", help="Exit with 0 even if pictures are in review, for Kubernetes Jobs.")
    ] = False,
    trainer: options.TrainerAddress = options.TRAINER_ADDRESS,
    generator: options.GeneratorAddress = options.GENERATOR_ADDRESS,
    tenant: options.Tenant = options.TENANT,
    use_tls: options.UseTls = False,
    root_certificates: options.RootCertificates = None,
    json_output: options.Json = False,
) -> None:
    """Train missing concepts, generate and check pictures, retry failed ones; a restarted run resumes.

    After changes to the file only the changed rows are processed. Pictures that never pass the checks are in
    OUT/review, with reasons in OUT/report.html; decisions saved from that page are applied by the next run.
    """
    from detex_catalog.checks.picture_check import Thresholds
    from detex_catalog.progress import open_progress
    from detex_catalog.run.options import RunOptions
    from detex_catalog.session import Request
    from detex_catalog.session import run as run_session

    request = Request(
        file=file,
        out=out,
        encoding=encoding,
        shard=_shard(shard),
        options=RunOptions(
            thresholds=Thresholds(
                min_likeness=min_likeness,
                min_contrast=min_contrast,
                min_duplicate_distance=min_duplicate_distance,
                max_unsafe=max_unsafe,
            ),
            max_redraws=max_redraws,
            training_jobs=training_jobs,
            streams=streams,
            patience_seconds=patience,
            drain_seconds=drain,
        ),
        unsafe=_detector(unsafe_check),
        metrics_file=metrics_file,
        metrics_address=metrics_address,
    )
    with ExitStack() as stack:
        trainer_client = stack.enter_context(options.open_trainer(trainer, tenant, use_tls, root_certificates))
        generator_client = stack.enter_context(options.open_generator(generator, tenant, use_tls, root_certificates))
        if dry_run:
            _tell_estimate(request, trainer_client, price_per_gpu_hour, gpus, json_output)
            return
        with open_progress(json_lines=json_output) as progress:
            code = run_session(request, trainer_client, generator_client, progress)
    if code is ExitCode.REVIEW and review_is_good:
        code = ExitCode.ALL_GOOD
    raise typer.Exit(int(code))


@catalog.command()
@_reported
def check(
    file: File,
    out: Annotated[
        Path | None, typer.Option("--out", help="Output folder of earlier runs, whose work counts as done.")
    ] = None,
    encoding: Encoding = "utf-8",
    offline: Annotated[bool, typer.Option("--offline", help="Do not contact the services.")] = False,
    trainer: options.TrainerAddress = options.TRAINER_ADDRESS,
    generator: options.GeneratorAddress = options.GENERATOR_ADDRESS,
    tenant: options.Tenant = options.TENANT,
    use_tls: options.UseTls = False,
    root_certificates: options.RootCertificates = None,
) -> None:
    """Report all errors in a catalog by row and column; start nothing."""
    from detex_catalog.run.run_state import RunState
    from detex_catalog.session import Request, check_with_services, load, read_state

    state = read_state(out) if out is not None else RunState()
    found = load(Request(file, out or Path(), encoding), state)
    if not offline:
        with (
            options.open_trainer(trainer, tenant, use_tls, root_certificates) as trainer_client,
            options.open_generator(generator, tenant, use_tls, root_certificates) as generator_client,
        ):
            check_with_services(found, state, trainer_client, generator_client)
    sys.stdout.write(f"{file}: {len(found.pictures)} pictures of {len(found.concepts)} concepts, no errors\n")


@catalog.command()
@_reported
def report(file: File, out: Out, encoding: Encoding = "utf-8", json_output: options.Json = False) -> None:
    """Rewrite tables and report page from the journals of all shards, without contacting the services."""
    from detex_catalog.progress import open_progress
    from detex_catalog.session import Request, load, read_state, write_report

    request = Request(file, out, encoding)
    loaded = load(request, read_state(out))
    with open_progress(json_lines=json_output) as progress:
        found = write_report(request, loaded, progress)
    good = found["accepted"] == len(loaded.pictures)
    raise typer.Exit(int(ExitCode.ALL_GOOD if good else ExitCode.REVIEW))


def _tell_estimate(
    request: "Request", trainer: TrainerClient, price: float | None, gpus: int, json_output: bool
) -> None:
    from detex_catalog.estimate import estimate
    from detex_catalog.session import load, read_state

    state = read_state(request.out)
    part = request.shard.part(load(request, state))
    found = estimate(part, state, trainer, price_per_gpu_hour=price, gpus=gpus)
    if json_output:
        sys.stdout.write(json.dumps({"event": "estimate", **asdict(found)}) + "\n")
        return
    lines = [
        f"Pictures: {found.to_draw} to generate, {found.pictures} in total",
        f"Concepts: {len(found.to_train)} to train, {found.concepts} in total",
        f"Minutes:  {'unknown' if found.minutes is None else format(found.minutes, 'g')}",
    ]
    if price is not None:
        lines.append(f"Cost:     {'unknown' if found.cost is None else format(found.cost, 'g')}")
    sys.stdout.write("\n".join([*lines, *found.basis]) + "\n")


def _shard(text: str) -> "Shard":
    from detex_catalog.sharding import parse_shard

    try:
        return parse_shard(text)
    except ValueError as error:
        raise _fail(ExitCode.INPUT_AT_FAULT, f"--shard: {error}") from None


def _detector(text: str) -> "UnsafeDetector":
    from detex_catalog.checks.unsafe import UnsafeDetector

    try:
        return UnsafeDetector(text)
    except ValueError:
        said = f"--unsafe-check: must be {' or '.join(UnsafeDetector)}, got {text!r}"
        raise _fail(ExitCode.INPUT_AT_FAULT, said) from None
