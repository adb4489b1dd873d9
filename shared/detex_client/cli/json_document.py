"""Values of the client as JSON documents."""

import json
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Any


def document(value: Any) -> Any:
    """The value as JSON types: dataclasses as objects, times in ISO 8601, enums by value, no bytes.

    Fields that hold bytes, such as pictures, are left out: a document names the file instead.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: document(getattr(value, field.name))
            for field in fields(value)
            if not isinstance(getattr(value, field.name), bytes)
        }
    if isinstance(value, dict):
        return {str(key): document(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [document(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    return value


def written(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """The value as JSON text; NaN and infinities, which JSON lacks, become null.

    Args:
        value: Of the client.
        indent: Spaces of a level; None for one line.
        ascii_only: Whether other characters become escapes of JSON, where they cannot be written as they are.
    """
    return json.dumps(_finite(document(value)), indent=indent, ensure_ascii=ascii_only, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
