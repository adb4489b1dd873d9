"""How well the report that every concept carries foretells what the judge sees of it.

The trainer knows no labels: its report warns by what it can measure on any base model. Here the labels are known, so
each warning is held against the harm that it warns of, over concepts of all methods and settings, good and bad.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.quality.jobs import report_of
from benchmarks.quality.judge import Judge
from benchmarks.quality.observation import Comparison, Observed, observe
from benchmarks.quality.variants import BASE
from benchmarks.results_file import ResultRow, table, write_results
from detex_diffusion.base_model import BaseModel
from detex_trainer.report import findings as report_findings
from detex_trainer.report.findings import attention_gain
from detex_trainer.report.training_report import Report, Verdict

RESULTS: Final = "concept_report"
_MOST_FALSE_ALARMS: Final = 0.1


@dataclass(frozen=True)
class Harm:
    """Something that the judge sees to be wrong with a concept.

    Attributes:
        name: For people.
        size: From the concept's metrics and the base model's, for the same subject.
        smallest: From this size on it counts.
    """

    name: str
    size: Callable[[Mapping[str, float], Mapping[str, float]], float]
    smallest: float


SCENES_LEAK: Final = Harm(
    "a photo's scene where another or none was asked, 0.15 more often than without the concept",
    lambda own, base: own["scene_leakage"] - base["scene_leakage"],
    0.15,
)
PROMPTS_FAIL: Final = Harm(
    "named scene and pose right 0.15 less often than without the concept",
    lambda own, base: _obedience(base) - _obedience(own),
    0.15,
)
NOT_LEARNED: Final = Harm(
    "fidelity less than 0.15 above the plain class word's",
    lambda own, base: base["fidelity"] - own["fidelity"],
    -0.15,
)


@dataclass(frozen=True)
class ReportWarning:
    """What the report warns by.

    Attributes:
        name: For people.
        measure: From a report; None where it cannot be told.
        warns_above: Whether large values are bad, or small ones.
        threshold: Beyond it the report warns.
        harm: What it warns of.
    """

    name: str
    measure: Callable[[Report], float | None]
    warns_above: bool
    threshold: float
    harm: Harm


WARNINGS: Final = (
    ReportWarning(
        "likeness to the photos' surroundings",
        lambda report: _chosen_likeness(report),
        True,
        report_findings.LARGEST_BACKGROUND_SIMILARITY,
        SCENES_LEAK,
    ),
    ReportWarning(
        "attention on the subject against chance",
        lambda report: attention_gain(report.after),
        False,
        report_findings.SMALLEST_ATTENTION_GAIN,
        SCENES_LEAK,
    ),
    ReportWarning(
        "size of the deltas",
        lambda report: report.delta_share,
        True,
        report_findings.LARGEST_DELTA_SHARE,
        PROMPTS_FAIL,
    ),
    ReportWarning(
        "what the subject word says more than the class word",
        lambda report: report.subject_gain,
        False,
        report_findings.SMALLEST_SUBJECT_GAIN,
        NOT_LEARNED,
    ),
)


@dataclass(frozen=True)
class JudgedConcept:
    """A concept as its own report and as the judge see it; metrics of the base model for the same subject."""

    report: Report
    own: Mapping[str, float]
    base: Mapping[str, float]


def calibrate(
    comparison: Comparison, base_model: BaseModel, judge: Judge, out: Path | None, report: Callable[[str], None]
) -> Path:
    """Learn and judge as `compare` does, and hold the concepts' reports against it.

    Args:
        comparison: As of `compare`; the more different the settings are, good and bad, the more is learned.
        base_model: As of `compare`.
        judge: As of `compare`.
        out: Result file; by default the one of this machine.
        report: Told how far the run has come.

    Returns:
        The path of the result file.
    """
    observed = observe(comparison, base_model, judge, report)
    rows = calibration_rows(_judged(observed))
    settings = {
        "seed": comparison.seed,
        "split": comparison.split,
        "subjects": [subject.name for subject in observed.subjects],
        "variants": [label for label in observed.labels if label != BASE],
        "not_measured": dict(observed.failures),
        "base_model": comparison.base_model.source,
        "base_model_fingerprint": base_model.fingerprint,
    }
    path = write_results(RESULTS, rows, module="benchmarks.quality", path=out, settings=settings)
    print(table(rows))
    return path


def calibration_rows(concepts: Sequence[JudgedConcept]) -> list[ResultRow]:
    """For each warning how well it tells harm from none, at its threshold and at the best; then the verdict."""
    rows = [ResultRow(what="concepts", value=float(len(concepts)))]
    for warning in WARNINGS:
        told = [(warning.measure(each.report), _is_harmed(each, warning.harm)) for each in concepts]
        known = [(value, harmed) for value, harmed in told if value is not None]
        rows += _rows_of(warning, known)
    harmed = [any(_is_harmed(each, warning.harm) for warning in WARNINGS) for each in concepts]
    for verdict in Verdict:
        given = [is_harmed for each, is_harmed in zip(concepts, harmed, strict=True) if each.report.verdict is verdict]
        rows.append(
            _share_row(f"harmed, of the concepts that are called {verdict}", sum(given), len(given), "of any kind")
        )
    return rows


def area_under_curve(bad: Sequence[float], good: Sequence[float]) -> float | None:
    """Chance that a harmed concept has a worse value than another one: 0.5 says nothing, 1 says all.

    Args:
        bad: Values of harmed concepts, larger where worse.
        good: Values of the others.

    Returns:
        None where there are none of either.
    """
    if not bad or not good:
        return None
    difference = np.subtract.outer(np.asarray(bad), np.asarray(good))
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def best_threshold(bad: Sequence[float], good: Sequence[float]) -> float | None:
    """Where to warn so that most harm is caught with false alarms of a tenth at most; None without harm.

    Args:
        bad: As of `area_under_curve`.
        good: As of `area_under_curve`.

    Returns:
        A value between two that were seen; those above it are warned of.
    """
    values = sorted({*bad, *good})
    if not bad or len(values) < 2:
        return None
    between = [(low + high) / 2 for low, high in pairwise(values)]
    fair = [each for each in between if not good or np.mean(np.asarray(good) > each) <= _MOST_FALSE_ALARMS]
    if not fair:
        return None
    caught = {each: float(np.mean(np.asarray(bad) > each)) for each in fair}
    most = max(caught.values())
    # of equally good ones the largest: it has the fewest false alarms
    return max(each for each in fair if caught[each] == most)


def _rows_of(warning: ReportWarning, known: Sequence[tuple[float, bool]]) -> list[ResultRow]:
    sign = 1 if warning.warns_above else -1
    bad = [sign * value for value, harmed in known if harmed]
    good = [sign * value for value, harmed in known if not harmed]
    area, best = area_under_curve(bad, good), best_threshold(bad, good)
    harm = f"harm: {warning.harm.name}"
    rows = [
        _share_row(f"{warning.name}: harmed concepts", len(bad), len(known), harm),
        ResultRow(
            what=f"{warning.name}: area under the curve",
            value=None if area is None else round(area, 4),
            note="there are none with, or none without harm" if area is None else "0.5 says nothing, 1 says all",
        ),
    ]
    thresholds = [("its threshold", warning.threshold)] + ([] if best is None else [("the best one", sign * best)])
    for kind, threshold in thresholds:
        at = f"at {kind}, {threshold:.4g}"
        caught, false = (sum(value > sign * threshold for value in values) for values in (bad, good))
        rows.append(_share_row(f"{warning.name}: caught {at}", caught, len(bad)))
        rows.append(_share_row(f"{warning.name}: false alarms {at}", false, len(good)))
    return rows


def _share_row(what: str, part: int, whole: int, note: str = "") -> ResultRow:
    told = f"{part} of {whole}"
    value = round(part / whole, 4) if whole else None
    return ResultRow(what=what, value=value, note=f"{told}; {note}" if note else told)


def _judged(observed: Observed) -> list[JudgedConcept]:
    metrics = observed.metrics()
    found = []
    for number, subject in enumerate(observed.subjects):
        base = {name: values[number] for name, values in metrics[BASE].items()}
        for label in observed.labels:
            if label != BASE:
                own = {name: values[number] for name, values in metrics[label].items()}
                found.append(JudgedConcept(report_of(observed.jobs[label, subject.name]), own, base))
    return found


def _is_harmed(concept: JudgedConcept, harm: Harm) -> bool:
    return harm.size(concept.own, concept.base) >= harm.smallest


def _obedience(metrics: Mapping[str, float]) -> float:
    return (metrics["scene_accuracy"] + metrics["pose_accuracy"]) / 2


def _chosen_likeness(report: Report) -> float | None:
    return next((each.background_similarity for each in report.candidates if each.step == report.chosen_step), None)
