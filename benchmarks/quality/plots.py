"""Plots of the report page."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from benchmarks.quality.summary import Measurements
from benchmarks.quality.variants import BASE

mpl.use("agg")
from matplotlib import pyplot
from matplotlib.figure import Figure

_MARKERS = "osD^vP*X<>"
_LABEL_CHARACTERS = 44


def draw_fidelity_against_editability(measured: Measurements, path: Path) -> None:
    """One small point for each method and subject, one large point for each method's mean.

    Editability is the mean of the accuracies of named scenes and named poses, as a share of the base model's own mean.
    """
    base = np.mean([_editability(measured.metrics[BASE], subject) for subject in range(_subjects(measured))])
    figure, axes = pyplot.subplots(figsize=(6.4, 5.6), layout="constrained")
    for place, (label, metrics) in enumerate(measured.metrics.items()):
        share = [_editability(metrics, subject) / base for subject in range(_subjects(measured))]
        colour, marker = f"C{place % 10}", _MARKERS[place % len(_MARKERS)]
        axes.scatter(metrics["fidelity"], share, s=16, color=colour, marker=marker, alpha=0.45)
        axes.scatter(
            [np.mean(metrics["fidelity"])], [np.mean(share)], s=130, color=colour, marker=marker, label=_wrapped(label),
            edgecolors="black", linewidths=0.8,
        )  # fmt: skip
    axes.axvline(float(np.mean(measured.photos["fidelity"])), color="grey", linestyle=":", label="training photos")
    axes.set_xlabel("subject fidelity (identity similarity to held-out photos)")
    axes.set_ylabel("editability (share of the base model's scenes and poses)", fontsize=9)
    _add_legend(figure)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw_bars(measured: Measurements, names: Sequence[tuple[str, str]], path: Path) -> None:
    """Means of some metrics, the same scale for all, one bar for each variant; points are subjects.

    Args:
        measured: What was measured.
        names: Metrics and what they are called below their bars.
        path: PNG to write.
    """
    labels = list(measured.metrics)
    figure, axes = pyplot.subplots(figsize=(1.6 * len(names) + 1.5, 5.0), layout="constrained")
    width = 0.8 / len(labels)
    for place, label in enumerate(labels):
        metrics: Mapping[str, Sequence[float]] = measured.metrics[label]
        for group, (name, _) in enumerate(names):
            if name not in metrics:
                continue
            x = group + (place - (len(labels) - 1) / 2) * width
            axes.bar(
                x,
                np.mean(metrics[name]),
                width * 0.92,
                color=f"C{place % 10}",
                label=None if group else _wrapped(label),
            )
            axes.scatter([x] * len(metrics[name]), metrics[name], s=5, color="black", alpha=0.4, zorder=3)
    axes.set_xticks(range(len(names)), [title for _, title in names], fontsize=8)
    _add_legend(figure)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _add_legend(figure: Figure) -> None:
    """Below the axes, where it hides no point."""
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)


def _wrapped(label: str) -> str:
    """A label whose settings stand on lines of their own where they are long."""
    return textwrap.fill(label.replace(",", ", "), _LABEL_CHARACTERS)


def _subjects(measured: Measurements) -> int:
    return len(measured.metrics[BASE]["fidelity"])


def _editability(metrics: Mapping[str, Sequence[float]], subject: int) -> float:
    return (metrics["scene_accuracy"][subject] + metrics["pose_accuracy"][subject]) / 2
