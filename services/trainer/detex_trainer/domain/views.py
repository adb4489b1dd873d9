"""How large a photo is shown in a step."""

from enum import StrEnum


class View(StrEnum):
    """How large a resized crop shows the photo."""

    AS_IT_IS = "as it is"
    SMALL = "small"
    NEAR = "near"
