"""What is wrong with a catalog file, told all at once."""

from dataclasses import dataclass

LONGEST_SHOWN = 120


@dataclass(frozen=True, order=True)
class Fault:
    """One thing to mend.

    Attributes:
        row: Row of the spreadsheet (its heads are row 1), or line of a JSONL file; 0 for the file as a whole.
        column: Column; empty for the row as a whole.
        message: What was given and what is accepted.
    """

    row: int
    column: str
    message: str

    def __str__(self) -> str:
        place = [f"row {self.row}"] if self.row else ["file"]
        place += [f"column {self.column}"] if self.column else []
        return f"{', '.join(place)}: {self.message}"


class CatalogFaultsError(Exception):
    """The catalog cannot be run as it is. `faults` holds all that was found, by row and column."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = sorted(set(faults))
        super().__init__("\n".join(map(str, self.faults)))


def shown(value: object) -> str:
    """A readable value, shortened."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."
