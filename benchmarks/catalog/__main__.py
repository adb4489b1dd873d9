"""`python -m benchmarks.catalog`: a catalog beside the generator's own throughput, then through kills."""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.catalog.run_process import CatalogCommand, doubled, lost
from benchmarks.catalog.table import concept_name, write_table
from benchmarks.results_file import ResultRow, at_least, at_most, table, write_results
from benchmarks.soak.services import Services, running_services
from detex_catalog.table.catalog import PictureOrder
from detex_catalog.table.catalog_file import load_catalog
from detex_client import GeneratedPicture, GeneratorClient, RequestFailed, TrainerClient
from detex_showroom import SampleSubject, sample_subjects

SUBJECTS = 2


def main() -> None:
    """Parse the command line, run, write the results; ends with 1 where something was not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.catalog", description=__doc__)
    parser.add_argument("--rows", type=int, default=500, help="rows of the catalog, one picture each")
    parser.add_argument("--kills", type=int, default=20, help="kills of the run, spread over its pictures")
    parser.add_argument("--training-steps", type=int, default=100, help="optimisation steps of each concept")
    parser.add_argument("--seed", type=int, default=11, help="decides when the kills come")
    parser.add_argument("--out", type=Path, help="result file; by default benchmarks/results/catalog/<machine>.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="detex-catalog-") as temporary:
        folder = Path(temporary)
        subjects = sample_subjects()[:SUBJECTS]
        with running_services(folder) as services:
            rows = measure(folder, services, subjects, arguments)
    settings = {
        "rows": arguments.rows,
        "kills": arguments.kills,
        "concepts": SUBJECTS,
        "training_steps": arguments.training_steps,
        "seed": arguments.seed,
    }
    path = write_results("catalog", rows, module="benchmarks.catalog", path=arguments.out, settings=settings)
    print(table(rows))
    print(path)
    sys.exit(any(row.met is False for row in rows))


def measure(
    folder: Path, services: Services, subjects: Sequence[SampleSubject], arguments: argparse.Namespace
) -> list[ResultRow]:
    """Kills first, by which the concepts are trained; then the same pictures by the run and by the generator alone."""
    addresses = services.addresses
    file = write_table(folder / "night.jsonl", subjects, arguments.rows, training_steps=arguments.training_steps)
    killed = CatalogCommand(file, folder / "killed", addresses.trainer, addresses.generator)
    hits = killed.run_through_kills(arguments.kills, arguments.rows, random.Random(arguments.seed))
    with TrainerClient(addresses.trainer) as trainer:
        jobs = [len(list(trainer.jobs(concept_name=concept_name(subject)))) for subject in subjects]

    again = folder / "again.jsonl"
    again.write_text(file.read_text(encoding="utf-8").replace('"photos"', '"references"'), encoding="utf-8")
    whole = CatalogCommand(again, folder / "whole", addresses.trainer, addresses.generator)
    pictures = load_catalog(again).pictures
    with GeneratorClient(addresses.generator) as generator:
        before = own_rate(generator, pictures)
        seconds = whole.run()
        after = own_rate(generator, pictures)
    return [
        ResultRow(
            what="throughput of a run against the generator's own",
            value=2 * arguments.rows / seconds / (before + after),
            reach=at_least(0.9),
            note="pictures by the time from start to exit of the process: reading and checking the table and its "
            "photos, asking the services, checks of each picture, journal and report included",
        ),
        ResultRow(
            what="pictures of a run", value=arguments.rows / seconds, unit="images/s", runs=(arguments.rows / seconds,)
        ),
        ResultRow(
            what="pictures of the generator over one stream, kept nowhere",
            value=(before + after) / 2,
            unit="images/s",
            runs=(before, after),
            note="before and after the run",
        ),
        ResultRow(what="kills that hit a run under way", value=hits, reach=at_least(arguments.kills)),
        ResultRow(what="lost pictures", value=lost(killed.out, arguments.rows), reach=at_most(0)),
        ResultRow(what="doubled pictures", value=doubled(killed.out), reach=at_most(0)),
        ResultRow(
            what="jobs beyond one for each concept", value=sum(jobs) - len(subjects), reach=at_most(0), runs=tuple(jobs)
        ),
    ]


def own_rate(generator: GeneratorClient, pictures: Sequence[PictureOrder]) -> float:
    """Pictures per second of the same requests over one stream.

    Raises:
        DetexClientError: One was refused.
    """
    drawn = 0
    begun = time.monotonic()
    for news in generator.generate_many(picture.request(picture.seed, {}) for picture in pictures):
        if isinstance(news.event, RequestFailed):
            raise news.event.error
        drawn += isinstance(news.event, GeneratedPicture)
    return drawn / (time.monotonic() - begun)


if __name__ == "__main__":
    main()
