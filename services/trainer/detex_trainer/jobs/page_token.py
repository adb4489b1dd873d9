"""Page tokens: where the next page of a list begins, opaque to callers."""

import base64
import binascii
import hashlib
import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from detex_core.errors import DetexError, invalid_input
from detex_core.name_form import shown_text

MAX_PAGE_SIZE = 1_000
DEFAULT_PAGE_SIZE = 50

_SEQUENCE = re.compile(r"[1-9][0-9]{0,18}")
_LARGEST_SEQUENCE = 2**63 - 1


class _PageToken(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    after: str = Field(max_length=600)
    query: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]


def page_size_of(requested: int) -> int:
    """Items per page; 0 means 50.

    Raises:
        InvalidInputError: It is not 0 to 1,000.
    """
    if not 0 <= requested <= MAX_PAGE_SIZE:
        raise invalid_input("page_size", requested, f"1 to {MAX_PAGE_SIZE:,}, or 0 for {DEFAULT_PAGE_SIZE}")
    return requested or DEFAULT_PAGE_SIZE


def write_page_token(after: str, *query: object) -> str:
    """A token for what comes after an item of a list.

    Args:
        after: The last item of the page before.
        query: What the list was asked for; the token fits no other query.
    """
    token = _PageToken(after=after, query=_query_digest(query))
    return base64.urlsafe_b64encode(token.model_dump_json().encode()).decode().rstrip("=")


def read_page_token(token: str, *query: object) -> str | None:
    """The item after which the page begins; None for the first page.

    Raises:
        InvalidInputError: It is no token, or one of another query.
    """
    if not token:
        return None
    try:
        data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        parsed = _PageToken.model_validate_json(data)
    except (binascii.Error, ValidationError, ValueError):
        raise _refused(token) from None
    if parsed.query != _query_digest(query):
        raise _refused(token)
    return parsed.after


def read_sequence_token(token: str, *query: object) -> int | None:
    """The number in a list by numbers after which the page begins; None for the first page.

    Raises:
        InvalidInputError: It is no token, one of another query, or one that was never given out.
    """
    after = read_page_token(token, *query)
    if after is None:
        return None
    if not _SEQUENCE.fullmatch(after) or int(after) > _LARGEST_SEQUENCE:
        raise _refused(token)
    return int(after)


def _query_digest(query: tuple[object, ...]) -> str:
    return hashlib.sha256(repr(query).encode()).hexdigest()[:16]


def _refused(token: str) -> DetexError:
    return invalid_input(
        "page_token", shown_text(token), "the next_page_token of the previous page, with the same filters"
    )
