"""The benchmark itself: subjects, jobs, facts, metrics, result file and report."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from benchmarks.quality.contact_sheet import SheetRow, contact_sheet
from benchmarks.quality.facts import PictureFacts, SubjectObserver
from benchmarks.quality.jobs import Drawing, Job, JobOutcome, outcome, run_jobs
from benchmarks.quality.judge import Judge
from benchmarks.quality.metrics import subject_metrics
from benchmarks.quality.picture_plan import plan_pictures
from benchmarks.quality.report_page import write_report
from benchmarks.quality.subjects import BenchmarkSubject, SubjectCounts, picture, render_others, render_subject
from benchmarks.quality.summary import Measurements, result_rows
from benchmarks.quality.variants import BASE, Refusal, Variant
from benchmarks.results_file import table, write_results
from benchmarks.showroom.renderer import Photo
from benchmarks.showroom.subject import Split, subject_seeds
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel
from detex_trainer.attribute_vocabulary import AttributeVocabulary

MODULE: Final = "benchmarks.quality"


@dataclass(frozen=True)
class Comparison:
    """What is to be compared.

    Attributes:
        variants: Methods with their hyperparameters.
        refusals: Those that the trainer does not train; told in the result.
        subjects: How many.
        split: Of the subjects: `test`, or `validation` for choosing hyperparameters.
        seed: Decides subjects, photos, prompts' chance choices and the pictures' seeds.
        drawing: How to draw.
        base_model: Settings of the base model.
        folder: Work folder.
        processes: Jobs at a time.
        threads: Of torch in each process.
        vocabulary: Plain words that attribute words may begin at; None for the trainer's own.
        counts: How many photos of which kind.
    """

    variants: Sequence[Variant]
    refusals: Sequence[Refusal]
    subjects: int
    split: Split
    seed: int
    drawing: Drawing
    base_model: BaseModelSettings
    folder: Path
    processes: int = 1
    threads: int = 1
    vocabulary: AttributeVocabulary | None = None
    counts: SubjectCounts = field(default_factory=SubjectCounts)


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
    subjects, others = _render(comparison, base_model.height, report)
    labels = [BASE, *(variant.label for variant in comparison.variants)]
    jobs = _jobs(comparison, subjects, base_model)
    failures = _run(jobs, comparison, report)
    labels = [label for label in labels if label not in failures]
    facts: dict[str, list[list[PictureFacts]]] = {label: [] for label in labels}
    outcomes = {label: [outcome(jobs[label, subject.name]) for subject in subjects] for label in labels}
    photos: dict[str, list[float]] = {"fidelity": [], "retrieval": [], "retrieval_in_class": []}
    for number, subject in enumerate(subjects):
        observer = SubjectObserver(base_model, judge, subject, others)
        for name, value in zip(photos, observer.observe_photos(subject), strict=True):
            photos[name].append(value)
        for label in labels:
            found = outcomes[label][number]
            facts[label].append(observer.observe(found.requests, found.images()))
    measured = _measurements(comparison, subjects, facts, outcomes, photos)
    rows = result_rows(measured)
    refused = {refusal.label: refusal.reason for refusal in comparison.refusals} | failures
    settings = {
        "seed": comparison.seed,
        "split": comparison.split,
        "subjects": [subject.name for subject in subjects],
        "counts": asdict(comparison.counts),
        "drawing": asdict(comparison.drawing),
        "vocabulary": comparison.vocabulary and comparison.vocabulary.model_dump(mode="json"),
        "base_model": comparison.base_model.source,
        "base_model_fingerprint": base_model.fingerprint,
        "variants": {
            variant.label: variant.hyperparameters.model_dump(mode="json")
            for variant in comparison.variants
            if variant.label in labels
        },
        "not_measured": refused,
    }
    path = write_results("quality", rows, module=MODULE, path=out, settings=settings)
    print(table([row for row in rows if row.reach is not None]))
    told = {name: settings[name] for name in ("seed", "split", "drawing", "base_model_fingerprint", "not_measured")}
    page = write_report(
        report_folder or path.with_suffix(""),
        f"Quality of {', '.join(label for label in labels if label != BASE)} on {len(subjects)} unseen subjects",
        measured,
        rows,
        {
            subject.name: _sheet(subject, jobs[BASE, subject.name], {label: outcomes[label][n] for label in labels})
            for n, subject in enumerate(subjects)
        },
        told,
    )
    return path, page


def _render(
    comparison: Comparison, side: int, report: Callable[[str], None]
) -> tuple[list[BenchmarkSubject], tuple[Photo, ...]]:
    folder, split, seed, counts = comparison.folder / "subjects", comparison.split, comparison.seed, comparison.counts
    seeds = subject_seeds(split, seed, comparison.subjects)
    subjects = []
    for index, subject_seed in enumerate(seeds):
        subjects.append(render_subject(subject_seed, split, seed, index, counts, side, folder))
        report(f"subject {index + 1} of {len(seeds)}: {subjects[-1].name}")
    return subjects, render_others(split, seed, seeds, counts, side, folder)


def _jobs(
    comparison: Comparison, subjects: Sequence[BenchmarkSubject], base_model: BaseModel
) -> dict[tuple[str, str], Job]:
    """Jobs by variant and subject, all variants of a subject before the next subject."""
    variants: list[tuple[str, Variant | None]] = [(BASE, None)]
    variants += [(variant.label, variant) for variant in comparison.variants]
    jobs = {}
    for index, subject in enumerate(subjects):
        plan_seed = int(np.random.default_rng([comparison.seed, index]).integers(1 << 53))
        requests = plan_pictures(subject.subject.class_word, photo_words(subject), plan_seed)
        for label, variant in variants:
            jobs[label, subject.name] = Job(
                label=label,
                subject=subject.name,
                photos=subject.photos,
                requests=requests,
                variant=variant,
                base_model=comparison.base_model,
                fingerprint=base_model.fingerprint,
                drawing=comparison.drawing,
                folder=comparison.folder,
                vocabulary=comparison.vocabulary,
            )
    return jobs


def _run(jobs: dict[tuple[str, str], Job], comparison: Comparison, report: Callable[[str], None]) -> dict[str, str]:
    """Run all jobs; gives the reason for each variant that failed on a subject."""
    failures: dict[str, str] = {}
    for number, done in enumerate(run_jobs(list(jobs.values()), comparison.processes, comparison.threads), 1):
        if isinstance(done, Job):
            took = outcome(done)
            seconds = f"{took.job_cpu_seconds:.0f} s to learn, {took.drawing_cpu_seconds:.0f} s to draw"
            report(f"{number}/{len(jobs)} {done.label}, {done.subject}: {seconds} of processor time")
        else:
            job, reason = done
            failures[job.label] = f"{job.subject}: {reason}"
            report(f"{number}/{len(jobs)} {job.label} is left out; {failures[job.label]}")
    return failures


def photo_words(subject: BenchmarkSubject) -> list[tuple[str, str]]:
    """Pose and scene of each training photo."""
    return [(photo.labels.view.pose, photo.labels.view.scene) for photo in subject.photos]


def _measurements(
    comparison: Comparison,
    subjects: Sequence[BenchmarkSubject],
    facts: dict[str, list[list[PictureFacts]]],
    outcomes: dict[str, list[JobOutcome]],
    photos: dict[str, list[float]],
) -> Measurements:
    metrics: dict[str, dict[str, list[float]]] = {}
    for label, of_subjects in facts.items():
        each = [
            subject_metrics(found, base, photo_words(subject))
            for found, base, subject in zip(of_subjects, facts[BASE], subjects, strict=True)
        ]
        metrics[label] = {name: [values[name] for values in each] for name in each[0]}
    return Measurements(
        metrics=metrics,
        photos=photos,
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
