"""The rows of the result file: estimates over subjects, compared with the base model and with each other."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.quality.bootstrap import Estimate, difference, estimate, mean, ratio, ratio_of_excesses
from benchmarks.quality.metrics import METRICS
from benchmarks.quality.variants import BASE
from benchmarks.results_file import Reach, ResultRow, at_least, at_most

SMALLEST_SUBJECTS = 12
"""With fewer subjects no reach is claimed."""
_RELATIVE = ("scene_accuracy", "pose_accuracy", "both_accuracy", "reuse", "other_class")
_EXCESS = ("leakage", "scene_leakage", "pose_leakage")
_TABLE_1 = ("text_similarity", "foreground_similarity")
_LARGEST_JOB_SECONDS = 240.0  # processor time: two minutes on two cores
_LARGEST_ARTIFACT_BYTES = 500_000


@dataclass(frozen=True)
class Measurements:
    """Everything that was measured.

    Attributes:
        metrics: By variant and metric, one value for each subject in the same order everywhere; `base` among them.
        photos: What the training photos themselves reach, by metric.
        job_cpu_seconds: By variant, one value for each subject.
        job_seconds: By variant, one value for each subject.
        artifact_bytes: By variant, one value for each subject.
        methods: Method by variant.
    """

    metrics: Mapping[str, Mapping[str, Sequence[float]]]
    photos: Mapping[str, Sequence[float]]
    job_cpu_seconds: Mapping[str, Sequence[float]]
    job_seconds: Mapping[str, Sequence[float]]
    artifact_bytes: Mapping[str, Sequence[float]]
    methods: Mapping[str, str] = field(default_factory=dict)

    @property
    def variants(self) -> list[str]:
        """Labels but for the base model's."""
        return [label for label in self.metrics if label != BASE]

    def first_of(self, method: str) -> str | None:
        """The first variant of a method, or None."""
        return next((label for label in self.variants if self.methods[label] == method), None)


def result_rows(measured: Measurements) -> list[ResultRow]:
    """All rows: for each variant the comparisons that have a reach, then every metric."""
    subjects = len(next(iter(measured.metrics[BASE].values())))
    rows = [
        ResultRow(what="unseen subjects", value=float(subjects), reach=at_least(SMALLEST_SUBJECTS)),
        *(_row(f"training photos: {name}", estimate(mean, values), values) for name, values in measured.photos.items()),
    ]
    for label in measured.variants:
        rows += _comparisons(measured, label)
        rows += _costs(measured, label)
    rows += _order_of_table_1(measured)
    for label, metrics in measured.metrics.items():
        for name, values in metrics.items():
            rows.append(_row(f"{label}: {name}", estimate(mean, values), values, note=METRICS[name].title))
    return rows


def _comparisons(measured: Measurements, label: str) -> list[ResultRow]:
    """What is said relative to the base model and to the peers; the reaches are those of detex."""
    own, base = measured.metrics[label], measured.metrics[BASE]
    is_detex = measured.methods[label] == "detex"
    reaches = {"scene_accuracy": 0.95, "pose_accuracy": 0.9, "reuse": 0.8, "other_class": 0.8} if is_detex else {}
    rows = []
    for name in _RELATIVE:
        if name in own:
            reach = at_least(reaches[name]) if name in reaches else None
            found = estimate(ratio, own[name], base[name])
            rows.append(_row(f"{label}: {name} relative to the base model's", found, reach=reach))
    for name in _EXCESS:
        found = estimate(difference, own[name], base[name])
        rows.append(_row(f"{label}: {name} above the base model's", found))
    if not is_detex:
        return rows
    custom = measured.first_of("custom_diffusion")
    if custom:
        peer = measured.metrics[custom]
        found = estimate(difference, own["fidelity"], peer["fidelity"])
        rows.append(_row(f"{label}: fidelity above {custom}'s", found, reach=at_least(0.0)))
        found = estimate(ratio_of_excesses, own["leakage"], peer["leakage"], base["leakage"])
        rows.append(_row(f"{label}: leakage as a share of {custom}'s", found, reach=at_most(1 / 3)))
    peers = [peer for peer in measured.variants if measured.methods[peer] != "detex"]
    if peers:
        best = max(peers, key=lambda peer: sum(measured.metrics[peer]["fidelity"]))
        found = estimate(difference, own["fidelity"], measured.metrics[best]["fidelity"])
        rows.append(_row(f"{label}: fidelity above the best peer's ({best})", found, reach=at_least(-0.02)))
    return rows


def _costs(measured: Measurements, label: str) -> list[ResultRow]:
    is_detex = measured.methods[label] == "detex"
    rows = []
    for what, values, unit, bound in (
        ("processor time of a job", measured.job_cpu_seconds[label], "s", _LARGEST_JOB_SECONDS),
        ("wall time of a job", measured.job_seconds[label], "s", None),
        ("artifact", measured.artifact_bytes[label], "bytes", _LARGEST_ARTIFACT_BYTES),
    ):
        reach = at_most(bound) if is_detex and bound is not None else None
        rows.append(_row(f"{label}: {what}", estimate(mean, values), values, unit=unit, reach=reach))
    return rows


def _order_of_table_1(measured: Measurements) -> list[ResultRow]:
    """The columns of the paper's Table 1 that DETEX wins there: how far it is ahead of the best peer here."""
    detex = measured.first_of("detex")
    peers = [peer for peer in measured.variants if measured.methods[peer] != "detex"]
    if detex is None or not peers:
        return []
    rows = []
    for name in _TABLE_1:
        if name not in measured.metrics[detex]:
            continue
        best = max(peers, key=lambda peer: sum(measured.metrics[peer][name]))
        found = estimate(difference, measured.metrics[detex][name], measured.metrics[best][name])
        rows.append(_row(f"{detex}: {METRICS[name].title}, above the best peer's ({best})", found, reach=at_least(0.0)))
    return rows


def _row(
    what: str,
    found: Estimate,
    runs: Sequence[float] = (),
    *,
    unit: str = "",
    reach: Reach | None = None,
    note: str = "",
) -> ResultRow:
    if not found.known:
        told = "cannot be told: the base model, or the method compared with, gives 0"
        return ResultRow(what=what, value=None, unit=unit, reach=reach, note=told)
    interval = f"95 % interval {found.low:.4g} to {found.high:.4g}, {found.subjects} subjects"
    finite = tuple(round(value, 6) for value in runs if math.isfinite(value))
    return ResultRow(
        what=what,
        value=round(found.value, 6),
        unit=unit,
        reach=reach,
        runs=finite,
        note=f"{interval}; {note}" if note else interval,
    )
