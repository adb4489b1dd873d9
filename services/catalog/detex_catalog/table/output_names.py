"""Names of pictures below the output folder: expanded from a pattern, and never outside of it."""

import re
import unicodedata

from detex_catalog.table.faults import shown

DEFAULT_PATTERN = "{sku}/{sku}-{number}"
SUFFIX = ".png"
PLACEHOLDERS = ("sku", "concept", "scene", "number")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}|[{}]")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$)", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f\\:*?"<>|]')
_LONGEST_PART_BYTES = 200
_LONGEST_PATH_BYTES = 900
_DEEPEST = 8


def expand(pattern: str, values: dict[str, str]) -> str:
    """The name of one picture: the pattern with its placeholders filled in, ending in .png.

    Args:
        pattern: With `{sku}`, `{concept}`, `{scene}` (position of the prompt in its row, from 1) and `{number}`
            (position of the picture in its row, from 1).
        values: By placeholder.

    Raises:
        ValueError: A placeholder is unknown, or the name is unsafe: absolute, with `..`, with characters that a file
            system or a shell trips over, or too long.
    """

    def replaced(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise ValueError(f"must use {', '.join(f'{{{name}}}' for name in PLACEHOLDERS)} alone, got {match[0]}")
        return values[match[1]]

    name = unicodedata.normalize("NFC", _PLACEHOLDER.sub(replaced, pattern))
    if not name.lower().endswith(SUFFIX):
        name += SUFFIX
    check(name)
    return name


def check(name: str) -> None:
    """Refuse a name that does not stay below its folder on every system.

    Raises:
        ValueError: With what is accepted and what was given.
    """
    parts = name.split("/")
    if name.startswith(("/", "~")) or ".." in parts:
        raise ValueError(f"must stay below the output folder, got {shown(name)}")
    if found := _FORBIDDEN.search(name):
        raise ValueError(f"must have no {found[0]!r}, got {shown(name)}")
    if len(parts) > _DEEPEST or len(name.encode("utf-8", "surrogatepass")) > _LONGEST_PATH_BYTES:
        raise ValueError(f"must be at most {_DEEPEST} folders deep and {_LONGEST_PATH_BYTES} bytes, got {shown(name)}")
    for part in parts:
        if part in ("", ".") or part[0] in ".- " or part[-1] in ". " or _RESERVED.match(part):
            raise ValueError(f"must be names that every file system takes, got {shown(part)} in {shown(name)}")
        if len(part.encode("utf-8", "surrogatepass")) > _LONGEST_PART_BYTES:
            raise ValueError(f"must be at most {_LONGEST_PART_BYTES} bytes per folder and name, got {shown(part)}")


def identity(name: str) -> str:
    """What two names have in common that are one file where capitals do not count."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKD", name).casefold())
