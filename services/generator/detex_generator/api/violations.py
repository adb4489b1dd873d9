"""Collects everything wrong with a request, so that a caller gets all of it at once."""

import math

from detex_core.errors import InvalidInputError, Violation, invalid_input
from detex_core.prompt import Prompt, parse_prompt


class Violations:
    """Collects what is wrong.

    Attributes:
        found: Violations so far.
    """

    def __init__(self) -> None:
        self.found: list[Violation] = []

    def add(self, field: str, given: object, accepted: str) -> None:
        """Note one."""
        self.found.extend(invalid_input(field, given, accepted).violations)

    def prompt(self, text: str, field: str) -> Prompt:
        """A prompt taken apart; an empty one where that is not possible."""
        try:
            return parse_prompt(text, field=field)
        except InvalidInputError as error:
            self.found.extend(error.violations)
            return Prompt(())

    def whole(self, field: str, given: int, lowest: int, highest: int, more: str = "") -> None:
        """Note a whole number that is out of range."""
        if not lowest <= given <= highest:
            self.add(field, given, f"{lowest} to {highest}{more}")

    def share(self, field: str, given: float, highest: float = 1.0, *, zero: bool) -> None:
        """Note a number that is not in 0 to `highest`; `zero` tells whether 0 itself is."""
        if not (math.isfinite(given) and 0 <= given <= highest) or (given == 0 and not zero):
            accepted = f"a number from 0 to {highest:g}" if zero else f"a number above 0 and at most {highest:g}"
            self.add(field, given, accepted)
