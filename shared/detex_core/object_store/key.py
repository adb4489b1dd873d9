"""Keys of objects: the grammar that a folder and S3 servers have in common."""

import re

from detex_core.errors import InvalidInputError, invalid_input

MAX_KEY_CHARACTERS = 512
MAX_SEGMENT_CHARACTERS = 200

_SEGMENT = re.compile(r"[A-Za-z0-9._-]{1,200}")
ACCEPTED_KEYS = (
    "segments of 1 to 200 of A-Z, a-z, 0-9, '.', '_' and '-', joined by '/', none of them '.' or '..', "
    "at most 512 characters in all"
)


def is_key(key: str) -> bool:
    """Whether `key` follows the grammar of keys."""
    return len(key) <= MAX_KEY_CHARACTERS and all(
        _SEGMENT.fullmatch(segment) and segment not in (".", "..") for segment in key.split("/")
    )


def checked_key(key: str) -> str:
    """The key itself where it follows the grammar.

    Raises:
        InvalidInputError: It does not; the field is `key`.
    """
    if not is_key(key):
        raise _key_error(key)
    return key


def _key_error(key: str) -> InvalidInputError:
    return invalid_input("key", repr(key), ACCEPTED_KEYS)
