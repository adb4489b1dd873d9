"""Texts of settings, as files and environments hold them."""

from typing import Any, Final

from pydantic import SecretStr

AROUND_VALUES: Final = " \t\r\n\ufeff"
"""Line ends, blanks, byte order marks: files of Secrets end in them, editors begin with them, no setting needs them."""


def trimmed(value: Any) -> Any:
    """A setting as it was meant: without what may stand around texts (`AROUND_VALUES`), at any depth."""
    if isinstance(value, str):
        return value.strip(AROUND_VALUES)
    if isinstance(value, SecretStr):
        return SecretStr(value.get_secret_value().strip(AROUND_VALUES))
    if isinstance(value, dict):
        return {key: trimmed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [trimmed(item) for item in value]
    return value
