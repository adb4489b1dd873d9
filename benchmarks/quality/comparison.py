"""The benchmark itself: what was observed, as metrics, result file and report."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Final

from PIL import Image

from benchmarks.quality.contact_sheet import SheetRow, contact_sheet
from benchmarks.quality.jobs import Job, JobOutcome
from benchmarks.quality.judge import Judge
from benchmarks.quality.observation import Comparison, Observed, observe, photo_words
from benchmarks.quality.report_page import write_report
from benchmarks.quality.subjects import BenchmarkSubject, picture
from benchmarks.quality.summary import Measurements, result_rows
from benchmarks.quality.variants import BASE
from benchmarks.results_file import table, write_results
from detex_diffusion.base_model import BaseModel

MODULE: Final = "benchmarks.quality"


def compare(
    comparison: Comparison,
    base_model: BaseModel,
    judge: Judge,
    out: Path | None,
    report_folder: Path | None,
    report: Callable[[str], None],
) -> tuple[Path, Path]:
    """Run the benchmark; jobs that were done before are not done again.

    A variant that fails on a subject is left out of the result, which says so.

    Args:
        comparison: What is to be compared.
        base_model: As its settings say, on any device.
        judge: Who looks at the pictures.
        out: Result file; by default the one of this machine.
        report_folder: Folder of the report page; by default one beside the result file, of its name.
        report: Told how far the run has come.

    Returns:
        Paths of the result file and of the report page.
    """
    observed = observe(comparison, base_model, judge, report)
    measured = _measurements(comparison, observed)
    rows = result_rows(measured)
    refused = {refusal.label: refusal.reason for refusal in comparison.refusals} | dict(observed.failures)
    settings = {
        "seed": comparison.seed,
        "split": comparison.split,
        "subjects": [subject.name for subject in observed.subjects],
        "counts": asdict(comparison.counts),
        "drawing": asdict(comparison.drawing),
        "vocabulary": comparison.vocabulary and comparison.vocabulary.model_dump(mode="json"),
        "base_model": comparison.base_model.source,
        "base_model_fingerprint": base_model.fingerprint,
        "variants": {
            variant.label: variant.hyperparameters.model_dump(mode="json")
            for variant in comparison.variants
            if variant.label in observed.labels
        },
        "not_measured": refused,
    }
    path = write_results("quality", rows, module=MODULE, path=out, settings=settings)
    print(table([row for row in rows if row.reach is not None]))
    told = {name: settings[name] for name in ("seed", "split", "drawing", "base_model_fingerprint", "not_measured")}
    page = write_report(
        report_folder or path.with_suffix(""),
        f"Quality of {', '.join(measured.variants)} on {len(observed.subjects)} unseen subjects",
        measured,
        rows,
        {
            subject.name: _sheet(
                subject,
                observed.jobs[BASE, subject.name],
                {label: each[n] for label, each in observed.outcomes.items()},
            )
            for n, subject in enumerate(observed.subjects)
        },
        told,
    )
    return path, page


def _measurements(comparison: Comparison, observed: Observed) -> Measurements:
    outcomes = observed.outcomes
    return Measurements(
        metrics=observed.metrics(),
        photos=observed.photos,
        job_cpu_seconds={label: [found.job_cpu_seconds for found in each] for label, each in outcomes.items()},
        job_seconds={label: [found.job_seconds for found in each] for label, each in outcomes.items()},
        artifact_bytes={label: [float(found.artifact_bytes) for found in each] for label, each in outcomes.items()},
        methods={variant.label: variant.method.value for variant in comparison.variants},
    )


def _sheet(subject: BenchmarkSubject, base: Job, outcomes: dict[str, JobOutcome]) -> Image.Image:
    rows = [
        SheetRow("base model, plain words" if label == BASE else label, dict(zip(o.requests, o.images(), strict=True)))
        for label, o in outcomes.items()
    ]
    photos = [
        (f"{pose}, {scene}", picture(photo))
        for (pose, scene), photo in zip(photo_words(subject), subject.photos, strict=True)
    ]
    return contact_sheet(subject.name, photos, [picture(photo) for photo in subject.held_out], base.requests, rows)
