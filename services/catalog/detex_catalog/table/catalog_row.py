"""The columns of a catalog, and one row of it as values."""

from dataclasses import dataclass, field
from typing import Any

from detex_catalog.table.cells import Reader, number, size, text, texts, whole
from detex_catalog.table.faults import Fault, shown
from detex_catalog.table.table_file import Record
from detex_client import Method
from detex_core.prompt import ATTRIBUTE_NAME, CONCEPT_NAME, MAX_PROMPT_CHARACTERS

SIZE_MULTIPLE = 8
LARGEST_SIDE = 4096
MAX_COUNT = 64
MAX_SEED = 2**32 - 1
MAX_ATTRIBUTES = 8
_METHODS = "|".join(Method)
_PATH = text(1, 1024)
_CLASS_WORD = r"(?=.*[^\W\d_])(?:[^\W_]+[ \-])*[^\W_]+"


@dataclass(frozen=True)
class CatalogRow:
    """One row. Empty cells take the defaults; docs/catalog.md says what each column means.

    Attributes:
        row: Where it stands in the file.
    """

    row: int
    sku: str
    concept: str = ""
    concept_version: str = ""
    photos: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    class_word: str = ""
    attributes: tuple[str, ...] = ()
    method: str = Method.DETEX.value
    training_steps: int = 0
    base_model: str = ""
    template: tuple[str, ...] = ()
    scenes: tuple[str, ...] = ()
    negative_prompt: str = ""
    count: int = 1
    size: tuple[int, int] = (0, 0)
    seed: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    output: str = ""
    min_likeness: float | None = None
    max_redraws: int | None = None


@dataclass(frozen=True)
class Column:
    """A column: how its cells are read, and whether each row needs it."""

    read: Reader
    needed: bool = field(default=False)


COLUMNS: dict[str, Column] = {
    "sku": Column(text(1, 64, r"[\w.\-]+", "letters, digits, dots, hyphens and underscores"), needed=True),
    "concept": Column(
        text(1, 63, CONCEPT_NAME.pattern, "1 to 63 of a-z, 0-9 and hyphens, beginning with a letter"),
    ),
    "concept_version": Column(text(1, 64)),
    "photos": Column(texts(_PATH, 64)),
    "references": Column(texts(_PATH, 64)),
    "class_word": Column(text(1, 64, _CLASS_WORD, "letters, digits, spaces and hyphens, with at least one letter")),
    "attributes": Column(
        texts(text(1, 32, ATTRIBUTE_NAME.pattern, "1 to 32 of a-z, 0-9, _ and -"), MAX_ATTRIBUTES),
    ),
    "method": Column(text(1, 40, _METHODS, f"one of {', '.join(Method)}")),
    "training_steps": Column(whole(1, 20_000)),
    "base_model": Column(text(1, 64)),
    "template": Column(texts(text(1, MAX_PROMPT_CHARACTERS), 256)),
    "scenes": Column(texts(text(1, MAX_PROMPT_CHARACTERS), 256)),
    "negative_prompt": Column(text(1, MAX_PROMPT_CHARACTERS)),
    "count": Column(whole(1, MAX_COUNT)),
    "size": Column(size(SIZE_MULTIPLE, LARGEST_SIDE)),
    "seed": Column(whole(0, MAX_SEED)),
    "steps": Column(whole(1, 500)),
    "guidance_scale": Column(number(0, 50)),
    "output": Column(text(1, 1024)),
    "min_likeness": Column(number(0, 2)),
    "max_redraws": Column(whole(0, 100)),
}
"""By name; the fields of CatalogRow."""


def read_row(record: Record) -> tuple[CatalogRow | None, list[Fault]]:
    """The row of a record and what is wrong with it; None where a column that is needed has no value."""
    faults: list[Fault] = []
    values: dict[str, Any] = {}
    for name, cell in record.values.items():
        column = COLUMNS.get(name)
        if column is None:
            continue
        try:
            value = column.read(cell)
        except ValueError as error:
            faults.append(Fault(record.row, name, str(error)))
        else:
            if value != ():
                values[name] = value
    for name, column in COLUMNS.items():
        if column.needed and name not in record.values:
            faults.append(Fault(record.row, name, "must not be empty"))
    if any(column.needed and name not in values for name, column in COLUMNS.items()):
        return None, faults
    return CatalogRow(row=record.row, **values), faults


def unknown_columns(records: list[Record]) -> list[Fault]:
    """A fault for each column that there is not, at the first row that has it."""
    first: dict[str, int] = {}
    for record in records:
        for name in record.values:
            if name not in COLUMNS:
                first.setdefault(name, record.row)
    return [
        Fault(row, name, f"must be one of the columns {', '.join(COLUMNS)}, got {shown(name)}")
        for name, row in first.items()
    ]
