"""Text for log lines: on one line, of bounded length, without what terminals obey, and without credentials."""

import re

LONGEST_MESSAGE = 8_192
"""Characters of a message; what a caller sends may stand in it."""
LONGEST_FIELD = 1_024
LONGEST_TRACEBACK = 32_768

_SPECIAL = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# Control characters of ASCII and Latin-1, separators that some programs break lines at, marks that reverse text, and
# halves of characters, which no encoding can write.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_CREDENTIALS = re.compile(
    r"(AWS4-HMAC-SHA256|Credential=|Signature=|X-Amz-Security-Token['\"]?\s*[:=]\s*|Bearer\s+)"
    r"[^\s,;&'\"]*(?:\s+Credential=[^\s,;&'\"]*)?",
    re.IGNORECASE,
)


def one_line(text: str, longest: int = LONGEST_MESSAGE) -> str:
    """The text on one line and shortened; what terminals or readers of lines obey is written as an escape."""
    return _UNSAFE.sub(_escaped, without_credentials(shortened(text, longest)))


def without_credentials(text: str) -> str:
    """The text with keys, signatures and tokens of requests replaced."""
    return _CREDENTIALS.sub(lambda found: f"{found[1]}***", text)


def shortened(text: str, longest: int) -> str:
    """The text, or its beginning with a word on how much there was."""
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text):,} characters)"


def indented(text: str) -> str:
    """Several lines, such as a traceback, as lines that none can take for log lines of their own."""
    lines = without_credentials(shortened(text, LONGEST_TRACEBACK)).splitlines()
    return "\n".join(f"    | {_UNSAFE.sub(_escaped, line)}" for line in lines)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    return _SPECIAL.get(character) or character.encode("unicode_escape", "surrogatepass").decode()
