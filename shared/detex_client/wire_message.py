"""Messages of the contract, made of what a caller gave."""

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
        DetexClientError: INVALID_ARGUMENT for a value that its field cannot carry at all, such as a text with halves of
            characters, which the command line makes of bytes that are no UTF-8; all other limits are the service's.
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
    return "a text in Unicode" if isinstance(value, str) else "what the contract says of this field"
