"""What an attribute word can explain: the subject, what lies around it, or the whole picture.

The rule decides two things in training: where the denoising loss looks while a word is left out of the prompt, and
which words the cross-attention loss draws away from the subject.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from detex_core.errors import invalid_input
from detex_core.prompt import ATTRIBUTE_NAMES

MAX_ATTRIBUTES = 8
DEFAULT_ATTRIBUTES = ("pose", "background")


class Region(StrEnum):
    """The part of a picture that an attribute word can explain."""

    SUBJECT = "subject"
    BACKGROUND = "background"
    EVERYWHERE = "everywhere"


_KNOWN_REGIONS = {
    Region.SUBJECT: "pose posture position orientation angle view viewpoint expression gesture action state outfit",
    Region.BACKGROUND: "background backdrop scene setting scenery place location environment surroundings room floor",
    Region.EVERYWHERE: "lighting light illumination style weather season mood exposure filter time",
}
_REGION_OF = {word: region for region, words in _KNOWN_REGIONS.items() for word in words.split()}


@dataclass(frozen=True)
class Attribute:
    """An attribute with a word of its own per photo.

    Attributes:
        name: Attribute word; it stands behind the embedding in prompts.
        region: What the word can explain.
    """

    name: str
    region: Region

    @property
    def preposition(self) -> str:
        """How a prompt leads to the word: `in [B] background`, `with [P] pose`."""
        return "in" if self.region is Region.BACKGROUND else "with"


def attribute_region(name: str) -> Region:
    """The region of an attribute: by a table of known words, `everywhere` for any other."""
    return _REGION_OF.get(name, Region.EVERYWHERE)


def parse_attributes(names: Sequence[str], *, field: str = "attributes") -> tuple[Attribute, ...]:
    """Check the attribute words of a job.

    Args:
        names: 0 to 8 different words.
        field: Name of the field in errors.

    Raises:
        InvalidInputError: Too many words, a word twice, or one that a prompt could not name.
    """
    if len(names) > MAX_ATTRIBUTES:
        raise invalid_input(field, len(names), f"at most {MAX_ATTRIBUTES} words")
    for index, name in enumerate(names):
        if not ATTRIBUTE_NAMES.is_name(name):
            given = ATTRIBUTE_NAMES.given(name) if name else "an empty word"
            raise invalid_input(f"{field}[{index}]", given, ATTRIBUTE_NAMES.accepted)
        if name in names[:index]:
            raise invalid_input(f"{field}[{index}]", f"{name} again", "unique")
    return tuple(Attribute(name, attribute_region(name)) for name in names)


def explained_regions(attributes: Sequence[Attribute], kept: Sequence[Attribute]) -> frozenset[Region]:
    """The regions of a photo that a prompt with the subject word and the `kept` attribute words can explain.

    The subject is always explained: without a pose word the subject word learns the subject in any of its poses. What
    lies around it is explained while a background word is in the prompt. Where a job has no background word at all, a
    word of region `everywhere` takes its part, as nothing else could learn what is there.

    Args:
        attributes: All attributes of the job.
        kept: Those in the prompt.
    """
    has_background = any(attribute.region is Region.BACKGROUND for attribute in attributes)
    bearer = Region.BACKGROUND if has_background else Region.EVERYWHERE
    explained = {Region.SUBJECT}
    if any(attribute.region is bearer for attribute in kept):
        explained.add(Region.BACKGROUND)
    return frozenset(explained)
