"""Tables as people keep them: CSV, JSON lines, Parquet."""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detex_catalog.table.faults import CatalogFaultsError, Fault, shown

MAX_FILE_BYTES = 256 * 1024**2
SUFFIXES = (".csv", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True)
class Record:
    """One row as it stands in the file.

    Attributes:
        row: Row of the spreadsheet (its heads are row 1), or line of a JSONL file, or row of a Parquet file from 1.
        values: What the columns hold; texts alone in CSV. Empty cells and nulls are left out.
    """

    row: int
    values: dict[str, Any]


def read_table(path: Path, *, encoding: str = "utf-8") -> list[Record]:
    """The rows of a file; rows that are empty throughout are left out.

    Args:
        path: File ending in .csv, .jsonl, .ndjson or .parquet.
        encoding: Of CSV and JSONL; a byte order mark is skipped. Excel in Japan writes `cp932`.

    Raises:
        CatalogFaultsError: The file is missing, too large, of another kind, in another encoding, or broken.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise _refused(f"must end in {', '.join(SUFFIXES)}, got {shown(path.name)}")
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise _refused(f"must be at most {MAX_FILE_BYTES // 1024**2} MiB, got {size // 1024**2}")
        data = path.read_bytes()
    except OSError as error:
        raise _refused(f"{path} cannot be read ({error.strerror})") from None
    if suffix == ".parquet":
        return _read_parquet(data)
    try:
        text = data.decode("utf-8-sig" if encoding.lower().replace("-", "") == "utf8" else encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise _refused(
            f"must be in {encoding} ({error}); save it as CSV UTF-8, or name its encoding with --encoding"
        ) from None
    records = _read_csv(text) if suffix == ".csv" else _read_json_lines(text)
    return [record for record in records if record.values]


def _read_csv(text: str) -> list[Record]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    records: list[Record] = []
    faults: list[Fault] = []
    heads: list[str] | None = None
    row = 0
    try:
        for row, cells in enumerate(reader, start=1):
            if heads is None:
                heads = [cell.strip() for cell in cells]
                faults += _wrong_heads(heads)
                continue
            if len(cells) > len(heads) and any(cell.strip() for cell in cells[len(heads) :]):
                faults.append(Fault(row, "", f"must have at most {len(heads)} cells, got {len(cells)}"))
            pairs = zip(heads, (cell.strip() for cell in cells), strict=False)
            records.append(Record(row, {head: cell for head, cell in pairs if head and cell}))
    except csv.Error as error:
        faults.append(Fault(row + 1, "", f"is no CSV: {error}"))
    if heads is None:
        faults.append(Fault(0, "", "must have a row of heads, got an empty file"))
    if faults:
        raise CatalogFaultsError(faults)
    return records


def _wrong_heads(heads: list[str]) -> list[Fault]:
    twice = {head for head in heads if head and heads.count(head) > 1}
    return [Fault(1, head, "must stand there once, got two columns of that name") for head in twice]


def _read_json_lines(text: str) -> list[Record]:
    records: list[Record] = []
    faults: list[Fault] = []
    for row, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line, object_pairs_hook=_object, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            faults.append(Fault(row, "", f"is no JSON: {error}"))
            continue
        if not isinstance(found, dict):
            faults.append(Fault(row, "", f"must be an object, got {shown(found)}"))
            continue
        records.append(Record(row, _present(found)))
    if faults:
        raise CatalogFaultsError(faults)
    return records


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in an object twice")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _read_parquet(data: bytes) -> list[Record]:
    import polars

    try:
        frame = polars.read_parquet(io.BytesIO(data))
    except (polars.exceptions.PolarsError, OSError) as error:
        raise _refused(f"is no Parquet: {error}") from None
    return [Record(row, values) for row, found in enumerate(frame.to_dicts(), start=1) if (values := _present(found))]


def _present(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None and value not in ("", [])}


def _refused(message: str) -> CatalogFaultsError:
    return CatalogFaultsError([Fault(0, "", message)])
