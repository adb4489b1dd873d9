"""What people decided about pictures: approve or reject, in files that the report page writes."""

import csv
import io
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from detex_catalog.table.faults import CatalogFaultsError, Fault, shown

PATTERN = "marks*.csv"
HEADS = ("output", "sha256", "mark", "note")
SHORTEST_SHA256 = 12


class Decision(StrEnum):
    """What is to become of a picture."""

    APPROVE = "approve"
    REJECT = "reject"


@dataclass(frozen=True)
class Mark:
    """A decision about one picture.

    Attributes:
        output: Name of the picture.
        sha256: Begin of the SHA-256 (hex) of the file that was looked at: a mark says nothing of a later picture.
    """

    output: str
    sha256: str
    decision: Decision


def read_marks(folder: Path) -> list[Mark]:
    """The marks of all files `marks*.csv` of an output folder; of two for one picture the later one of the newer file.

    Raises:
        CatalogFaultsError: A file is none of these; the faults name file, row and column.
    """
    marks: dict[tuple[str, str], Mark] = {}
    faults: list[Fault] = []
    paths = sorted(folder.glob(PATTERN), key=lambda path: (path.stat().st_mtime_ns, path.name))
    for path in paths:
        try:
            reader = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
            missing = set(HEADS[:3]) - set(reader.fieldnames or ())
            if missing:
                faults.append(Fault(1, "", f"{path.name} must have the columns {', '.join(HEADS[:3])}"))
                continue
            for row, values in enumerate(reader, start=2):
                mark = _mark(path, row, values, faults)
                if mark is not None:
                    marks[mark.output, mark.sha256] = mark
        except (UnicodeDecodeError, csv.Error) as error:
            faults.append(Fault(0, "", f"{path.name} is no CSV in UTF-8: {error}"))
    if faults:
        raise CatalogFaultsError(faults)
    return list(marks.values())


def _mark(path: Path, row: int, values: dict[str, str | None], faults: list[Fault]) -> Mark | None:
    decision, sha256 = (values.get("mark") or "").strip().lower(), (values.get("sha256") or "").strip().lower()
    if not decision:
        return None
    if decision not in list(Decision):
        faults.append(Fault(row, "mark", f"{path.name}: must be {' or '.join(Decision)}, got {shown(decision)}"))
        return None
    if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST_SHA256},64}}", sha256):
        faults.append(Fault(row, "sha256", f"{path.name}: must be {SHORTEST_SHA256} to 64 hexadecimal digits"))
        return None
    return Mark((values.get("output") or "").strip(), sha256, Decision(decision))
