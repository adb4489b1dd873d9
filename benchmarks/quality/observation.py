"""From what is to be compared to what the judge sees: concepts are learned, pictures drawn and judged."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.quality.facts import PictureFacts, SubjectObserver
from benchmarks.quality.jobs import Drawing, Job, JobOutcome, outcome, run_jobs
from benchmarks.quality.judge import Judge
from benchmarks.quality.metrics import subject_metrics
from benchmarks.quality.picture_plan import plan_pictures
from benchmarks.quality.subjects import BenchmarkSubject, SubjectCounts, render_others, render_subject
from benchmarks.quality.variants import BASE, Refusal, Variant
from benchmarks.showroom.renderer import Photo
from benchmarks.showroom.subject import Split, subject_seeds
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel
from detex_trainer.domain.attribute_vocabulary import AttributeVocabulary


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


@dataclass(frozen=True)
class Observed:
    """What was learned, drawn and seen. All lists go by subject.

    Attributes:
        subjects: In their order.
        labels: The base model's, then those of the variants that did not fail.
        jobs: By label and name of the subject.
        failures: Why a variant failed, by label.
        outcomes: What came of the jobs, by label.
        facts: What the judge sees in the pictures, by label.
        photos: What the training photos themselves reach, by metric.
    """

    subjects: Sequence[BenchmarkSubject]
    labels: Sequence[str]
    jobs: Mapping[tuple[str, str], Job]
    failures: Mapping[str, str]
    outcomes: Mapping[str, Sequence[JobOutcome]]
    facts: Mapping[str, Sequence[Sequence[PictureFacts]]]
    photos: Mapping[str, Sequence[float]]

    def metrics(self) -> dict[str, dict[str, list[float]]]:
        """By label and metric, one value for each subject."""
        found = {}
        for label, of_subjects in self.facts.items():
            each = [
                subject_metrics(facts, base, photo_words(subject))
                for facts, base, subject in zip(of_subjects, self.facts[BASE], self.subjects, strict=True)
            ]
            found[label] = {name: [values[name] for values in each] for name in each[0]}
        return found


def observe(comparison: Comparison, base_model: BaseModel, judge: Judge, report: Callable[[str], None]) -> Observed:
    """Learn, draw and judge; jobs that were done before are not done again.

    A variant that fails on a subject is left out.

    Args:
        comparison: What is to be compared.
        base_model: As its settings say, on any device.
        judge: Who looks at the pictures.
        report: Told how far the run has come.
    """
    subjects, others = _render(comparison, base_model.height, report)
    jobs = _jobs(comparison, subjects, base_model)
    failures = _run(jobs, comparison, report)
    labels = [BASE, *(variant.label for variant in comparison.variants if variant.label not in failures)]
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
    return Observed(subjects, labels, jobs, failures, outcomes, facts, photos)


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
