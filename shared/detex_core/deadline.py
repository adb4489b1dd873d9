"""When a call that nobody waits for any more counts as overdue rather than as cancelled."""

from typing import Final

SLACK_SECONDS: Final = 0.1
"""A caller whose time is over ends the call itself, and the server may learn of that just before its own clock says
so."""


def is_over(left_seconds: float | None) -> bool:
    """Whether a deadline has passed, given what is left until it; None where there is no deadline."""
    return left_seconds is not None and left_seconds <= SLACK_SECONDS
