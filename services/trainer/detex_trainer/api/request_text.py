"""Texts of requests, checked before they reach a database or a key."""

from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from detex_core.errors import invalid_input
from detex_core.name_form import shown_character, shown_text


def check_texts(message: Message, path: str = "") -> None:
    """Refuse what no name, id or text of a request may hold: NUL, which databases do not take.

    Args:
        message: A request.
        path: What its fields are named after; empty for the request itself.

    Raises:
        InvalidInputError: A text holds it; the field names which.
    """
    for field, value in message.ListFields():
        if field.type not in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE):
            continue
        name = f"{path}{field.name}"
        if isinstance(value, str | Message):
            _check(value, name)
        elif isinstance(value, Mapping):
            for key, each in value.items():
                _check(key, name)
                _check(each, f"{name}[{key}]")
        else:
            for position, each in enumerate(value):
                _check(each, f"{name}[{position}]")


def _check(value: Any, name: str) -> None:
    if isinstance(value, Message):
        check_texts(value, f"{name}.")
    elif isinstance(value, str) and "\0" in value:
        given = f"{shown_text(value)}, where {shown_character(chr(0))} is not allowed"
        raise invalid_input(name, given, "text without the character U+0000")
