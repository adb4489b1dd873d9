"""Which priority class has its turn."""

from collections.abc import Collection

from detex_generator.request.generation_request import Priority

_TURNS_PASSED_OVER = 7


class ClassTurns:
    """The highest waiting class goes first, but none is passed over forever.

    A class that has waited while seven turns went to others has the eighth. So under whatever load of higher classes, a
    lower one gets at least one turn in nine where one class is below, and in ten where two are. Not safe to use from
    several threads at once: its owner locks.
    """

    def __init__(self) -> None:
        self._passed_over: dict[Priority, int] = dict.fromkeys(Priority, 0)

    def choose(self, waiting: Collection[Priority]) -> Priority:
        """The class of this turn, one of those that wait; at least one must."""
        overdue = [each for each in waiting if self._passed_over[each] >= _TURNS_PASSED_OVER]
        # Of several that are overdue the one passed over longest; then and otherwise the highest.
        chosen = max(overdue, key=lambda each: (self._passed_over[each], each)) if overdue else max(waiting)
        for each in Priority:
            self._passed_over[each] = self._passed_over[each] + 1 if each in waiting and each is not chosen else 0
        return chosen
