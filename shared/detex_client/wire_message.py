"""Protobuf messages built from a caller's arguments."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from detex_client.errors import refused

Fields = ParamSpec("Fields")
Message = TypeVar("Message")


def wire_message(message: Callable[Fields, Message], /, *arguments: Fields.args, **fields: Fields.kwargs) -> Message:
    """A message with these fields.

    Args:
        message: Its class.
        arguments: None; messages are made of named fields.
        fields: As the class takes them.

    Raises:
        DetexClientError: INVALID_ARGUMENT for a value that its field cannot hold, such as text with lone surrogates,
            which the command line makes of bytes that are not UTF-8; the service checks all other limits.
    """
    try:
        return message(*arguments, **fields)
    except (TypeError, ValueError):
        for name, value in fields.items():
            try:
                message(**{name: value})  # type: ignore[arg-type, call-arg]
            except (TypeError, ValueError):
                raise refused(name, repr(value), _accepted(value)) from None
        raise


def _accepted(value: object) -> str:
    return "valid Unicode text" if isinstance(value, str) else "a value that this field can hold"
