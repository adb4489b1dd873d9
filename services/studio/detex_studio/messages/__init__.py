"""What the page says, in two languages."""

from detex_studio.messages.english import ENGLISH
from detex_studio.messages.japanese import JAPANESE
from detex_studio.messages.messages import Messages

CATALOGS: dict[str, Messages] = {"en": ENGLISH, "ja": JAPANESE}
DEFAULT_LANGUAGE = "en"

__all__ = ["CATALOGS", "Messages", "as_dictionary", "language_of"]


def as_dictionary(messages: Messages) -> dict[str, str]:
    """A catalog as a plain dictionary."""
    return {key: str(text) for key, text in messages.items()}


def language_of(chosen: str, accepted: str) -> str:
    """The language to answer in.

    Args:
        chosen: What the reader has chosen before; may be empty.
        accepted: The browser's `Accept-Language`, such as `ja,en;q=0.8`; what is malformed in it does not count.
    """
    if chosen in CATALOGS:
        return chosen
    wanted = []
    for part in accepted.split(","):
        tag, _, weight = part.partition(";q=")
        try:
            wanted.append((float(weight or 1), tag.strip().split("-")[0].lower()))
        except ValueError:
            continue
    known = [(weight, tag) for weight, tag in wanted if tag in CATALOGS and weight > 0]
    return max(known, key=lambda each: each[0])[1] if known else DEFAULT_LANGUAGE
