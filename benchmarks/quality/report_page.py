"""The report page: static HTML with the table, the plots and a contact sheet for each subject."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Final

from PIL import Image

from benchmarks.quality.bootstrap import estimate, mean
from benchmarks.quality.metrics import METRICS
from benchmarks.quality.plots import draw_bars, draw_fidelity_against_editability
from benchmarks.quality.summary import Measurements
from benchmarks.results_file import ResultRow

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1500px; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .7rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; }
td small { color: #777; white-space: nowrap; }
.best { font-weight: 700; }
.met { color: #176d2c; } .missed { color: #b3261e; }
img { max-width: 100%; height: auto; }
figure { display: inline-block; margin: 1rem 1rem 1rem 0; vertical-align: top; }
"""
_LEAKAGE: Final = (
    ("scene_leakage_none_asked", "photo's scene,\nnone asked"),
    ("scene_leakage_other_asked", "photo's scene,\nanother asked"),
    ("pose_leakage_none_asked", "photo's pose,\nnone asked"),
    ("pose_leakage_other_asked", "photo's pose,\nanother asked"),
)


def write_report(
    folder: Path,
    title: str,
    measured: Measurements,
    rows: Sequence[ResultRow],
    sheets: Mapping[str, Image.Image],
    settings: Mapping[str, object],
) -> Path:
    """Write `index.html` with its pictures.

    Args:
        folder: Where to.
        title: Of the page.
        measured: What was measured.
        rows: As in the result file.
        sheets: Contact sheets by name of the subject.
        settings: How it was measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw_fidelity_against_editability(measured, folder / "fidelity_against_editability.png")
    draw_bars(measured, _LEAKAGE, folder / "leakage.png")
    names = []
    for number, (subject, sheet) in enumerate(sheets.items()):
        names.append((subject, f"subject_{number:02d}.webp"))
        # A sheet is looked at, not computed with: a lossy file will do.
        sheet.save(folder / names[-1][1], quality=85, method=6)
    parts = [
        f"<h1>{escape(title)}</h1>",
        "<p>" + escape("; ".join(f"{name}: {value}" for name, value in settings.items())) + "</p>",
        "<h2>What was to be reached</h2>",
        _reach_table(rows),
        "<h2>Metrics</h2><p>Means over subjects with bootstrap intervals of 95 %. What each means is written in "
        "benchmarks/quality/README.md.</p>",
        _metrics_table(measured),
        "<h2>Plots</h2>",
        _figure("fidelity_against_editability.png", "Small points are subjects, large ones their means."),
        _figure("leakage.png", "How often a pose or scene of the training photos appears without being asked for."),
        "<h2>Subjects</h2><p>Every row has the same prompts and seeds.</p>",
        *(f"<h3>{escape(subject)}</h3>{_figure(file, '')}" for subject, file in names),
    ]
    body = "\n".join(parts)
    page = folder / "index.html"
    page.write_text(
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n",
        encoding="utf-8",
    )
    return page


def _reach_table(rows: Sequence[ResultRow]) -> str:
    lines = ["<table><tr><th>what</th><th>value</th><th>reach</th><th></th><th>note</th></tr>"]
    for row in rows:
        if row.reach is None:
            continue
        value = "not measured" if row.value is None else f"{row.value:.4g} {row.unit}".strip()
        verdict = '<span class="met">met</span>' if row.met else '<span class="missed">missed</span>'
        cells = (escape(row.what), escape(value), escape(str(row.reach)), verdict, f"<small>{escape(row.note)}</small>")
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "\n".join([*lines, "</table>"])


def _metrics_table(measured: Measurements) -> str:
    labels = list(measured.metrics)
    lines = ["<table><tr><th>metric</th>" + "".join(f"<th>{escape(label)}</th>" for label in labels)]
    lines[0] += "<th>training photos</th></tr>"
    for name, metric in METRICS.items():
        found = {
            label: estimate(mean, measured.metrics[label][name]) for label in labels if name in measured.metrics[label]
        }
        if not found:
            continue
        compared = {label: metric.better * each.value for label, each in found.items() if label in measured.variants}
        best = max(compared.values(), default=None) if metric.better else None
        sign = {1: " ↑", -1: " ↓", 0: ""}[metric.better]
        cells = [f"<td>{escape(metric.title)}{sign}</td>"]
        for label in labels:
            if label not in found:
                cells.append("<td>–</td>")
                continue
            each = found[label]
            mark = ' class="best"' if best is not None and compared.get(label) == best else ""
            interval = f"{each.low:.3f} – {each.high:.3f}"
            cells.append(f"<td><span{mark}>{each.value:.3f}</span><br><small>{interval}</small></td>")
        own = measured.photos.get(name)
        cells.append("<td>–</td>" if own is None else f"<td>{estimate(mean, own).value:.3f}</td>")
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return "\n".join([*lines, "</table>"])


def _figure(file: str, caption: str) -> str:
    return f'<figure><img src="{file}" alt=""><figcaption>{escape(caption)}</figcaption></figure>'
