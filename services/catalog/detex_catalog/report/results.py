"""One line per picture: `results.csv` and `results.jsonl`."""

import csv
import io
import json
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from detex_catalog.run.picture_folder import PICTURES, REVIEW, write_whole
from detex_catalog.run.run_state import PictureStatus, RunState
from detex_catalog.table.catalog import Catalog

CSV_NAME, JSONL_NAME = "results.csv", "results.jsonl"


@dataclass(frozen=True)
class Result:
    """What became of a picture.

    Attributes:
        file: Below the output folder; empty where there is none.
        seed: Of the picture in the file; of the first try where there is none.
        tries: Drawings so far.
        likeness: To the photos of the product; None where it was not measured, as the other measures.
        reasons: What speaks against it, or why it could not be drawn.
        approved: Whether somebody has accepted it against the checks.
    """

    sku: str
    output: str
    status: PictureStatus
    file: str
    sha256: str
    seed: int
    tries: int
    concept: str
    version: str
    prompt: str
    row: int
    likeness: float | None
    colour: float | None
    structure: float | None
    contrast: float | None
    duplicate_distance: float | None
    unsafe: float | None
    approved: bool
    reasons: str


def results_of(catalog: Catalog, state: RunState) -> list[Result]:
    """A result for each picture of a catalog, in its order."""
    results = []
    for order in catalog.pictures:
        found = state.picture(order)
        kept = found.kept
        folder = {PictureStatus.ACCEPTED: PICTURES, PictureStatus.REVIEW: REVIEW}.get(found.status)
        measures = kept.measures if kept else {}
        reasons = [found.message] if found.message else list(kept.reasons if kept else ())
        results.append(
            Result(
                sku=order.sku,
                output=order.output,
                status=found.status,
                file=f"{folder}/{order.output}" if folder else "",
                sha256=kept.sha256 if kept else "",
                seed=kept.seed if kept else order.seed,
                tries=found.tries,
                concept=order.concept,
                version=kept.version if kept else state.concept(catalog.concepts[order.concept]).version,
                prompt=order.prompt,
                row=order.row,
                likeness=measures.get("likeness"),
                colour=measures.get("colour"),
                structure=measures.get("structure"),
                contrast=measures.get("contrast"),
                duplicate_distance=measures.get("duplicate_distance"),
                unsafe=measures.get("unsafe"),
                approved=found.approved,
                reasons="; ".join(reasons),
            )
        )
    return results


def counts(results: list[Result]) -> dict[str, int]:
    """Pictures by status; every status is there."""
    found = Counter(result.status for result in results)
    return {status.value: found[status] for status in PictureStatus}


def write_results(results: list[Result], folder: Path, unfinished: Path) -> bool:
    """Write both tables, each whole or not at all; whether anything differs from what lay there.

    Raises:
        FolderUnusableError: They cannot be written.
    """
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(field.name for field in fields(Result))
    for result in results:
        writer.writerow(_cell(value) for value in asdict(result).values())
    lines = "".join(json.dumps(asdict(result), ensure_ascii=False) + "\n" for result in results)
    # The mark tells Excel that it is UTF-8.
    contents = {CSV_NAME: b"\xef\xbb\xbf" + table.getvalue().encode(), JSONL_NAME: lines.encode()}
    if all(_holds(folder / name, data) for name, data in contents.items()):
        return False
    for name, data in contents.items():
        write_whole(folder / name, data, unfinished)
    return True


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except FileNotFoundError:
        return False


def _cell(value: object) -> object:
    """A cell that spreadsheets take for text, never for a formula."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else None
    return f"'{text}" if text and text[0] in "=+-@\t\r" else value
