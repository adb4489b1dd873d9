"""`report.html`: every picture with its thumbnail, and marks for people to set. Asks nothing of any server."""

import base64
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path

import jinja2
from PIL import Image

from detex_catalog.report.results import Result, counts
from detex_catalog.run.picture_folder import write_whole
from detex_catalog.run.run_state import PictureStatus

PICTURES_PER_PAGE = 500
THUMBNAIL_SIDE = 160
_ORDER = (PictureStatus.REVIEW, PictureStatus.FAILED, PictureStatus.OPEN, PictureStatus.ACCEPTED)


@dataclass(frozen=True)
class _Card:
    result: Result
    thumbnail: str
    place: str


def page_name(number: int) -> str:
    """File name of a page, from 1."""
    return "report.html" if number == 1 else f"report-{number}.html"


def write_pages(results: list[Result], folder: Path, unfinished: Path, *, title: str) -> list[Path]:
    """Write the report, 500 pictures a page, those that want somebody's look first; pages of former runs go.

    Args:
        results: Of all pictures.
        folder: Output folder, from which thumbnails are made.
        unfinished: Folder for what is not yet whole.
        title: Name of the catalog.

    Raises:
        FolderUnusableError: It cannot be written.
    """
    ordered = sorted(results, key=lambda result: _ORDER.index(result.status))
    parts = [ordered[begin : begin + PICTURES_PER_PAGE] for begin in range(0, len(ordered), PICTURES_PER_PAGE)] or [[]]
    template = _template()
    paths = []
    for number, part in enumerate(parts, start=1):
        text = template.render(
            title=title,
            time=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            counts=counts(results),
            cards=[_card(result, folder) for result in part],
            pages=[page_name(other) for other in range(1, len(parts) + 1)],
            page=number,
            marks_name="marks.csv" if number == 1 else f"marks-{number}.csv",
        )
        paths.append(folder / page_name(number))
        write_whole(paths[-1], text.encode("utf-8", "replace"), unfinished)
    for old in folder.glob("report-*.html"):
        if old not in paths:
            old.unlink(missing_ok=True)
    return paths


def _template() -> jinja2.Template:
    source = files("detex_catalog.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    return jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)


def _card(result: Result, folder: Path) -> _Card:
    thumbnail = _thumbnail(folder / result.file) if result.file else ""
    return _Card(result, thumbnail, result.file)


def _thumbnail(path: Path) -> str:
    """The picture, small, as a data URL; empty where it cannot be read."""
    try:
        with Image.open(path) as image:
            small = image.convert("RGB")
    except (OSError, ValueError):
        return ""
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    file = io.BytesIO()
    small.save(file, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
