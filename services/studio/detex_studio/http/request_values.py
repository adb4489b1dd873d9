"""Values out of requests, each refused with its field where it is not accepted."""

import json
from typing import Any

from starlette.requests import Request

from detex_studio.errors import not_found, refused
from detex_studio.shelf import is_id


async def document(request: Request) -> dict[str, Any]:
    """The JSON object that a request carries."""
    body = await request.body()
    try:
        found = json.loads(body)
    except ValueError:
        raise refused("body", "a JSON object", "something else") from None
    if not isinstance(found, dict):
        raise refused("body", "a JSON object", type(found).__name__)
    return found


def text(values: dict[str, Any], field: str, longest: int, *, shortest: int = 0) -> str:
    """A text without blanks around it."""
    value = values.get(field, "")
    if not isinstance(value, str) or not shortest <= len(value.strip()) <= longest:
        raise refused(field, f"{shortest} to {longest} characters", repr(value))
    return value.strip()


def number(values: dict[str, Any], field: str, low: int, high: int, default: int) -> int:
    """A whole number."""
    value = values.get(field, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise refused(field, f"{low} to {high}", repr(value))
    return value


def photo_index(values: dict[str, Any], field: str) -> int | None:
    """The index of a photo; None where none is given."""
    return None if values.get(field) is None else number(values, field, 0, 9_999, 0)


def id_in_path(request: Request, name: str) -> str:
    """An id in the path; what cannot be one is not there."""
    value = str(request.path_params[name])
    if not is_id(value):
        raise not_found(name.removesuffix("_id").replace("_", " "))
    return value
