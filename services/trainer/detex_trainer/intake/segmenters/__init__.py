"""Segmenters: who finds the subject in photos that came without a mask.

Another segmenter, for example one with learned weights, is a class of an installed package without constructor
arguments that does what `Segmenter` says, named as an entry point of the group `detex.segmenters`:

    [project.entry-points."detex.segmenters"]
    my-segmenter = "my_package:MySegmenter"
"""

from importlib.metadata import entry_points

from detex_core.errors import FailedPreconditionError, invalid_input
from detex_trainer.intake.segmenters.color_contrast import ColorContrastSegmenter, SubjectNotFoundError
from detex_trainer.intake.segmenters.protocol import Segmenter
from detex_trainer.intake.segmenters.whole_picture import WholePictureSegmenter

__all__ = [
    "ENTRY_POINT_GROUP",
    "ColorContrastSegmenter",
    "Segmenter",
    "SubjectNotFoundError",
    "WholePictureSegmenter",
    "open_segmenter",
]

ENTRY_POINT_GROUP = "detex.segmenters"

_SEGMENTERS: dict[str, type[Segmenter]] = {
    "color_contrast": ColorContrastSegmenter,
    "none": WholePictureSegmenter,
}


def open_segmenter(name: str) -> Segmenter:
    """The segmenter of that name: `color_contrast`, `none`, which takes the whole picture, or an entry point.

    Raises:
        InvalidInputError: There is none of that name; field `segmenter`.
        FailedPreconditionError: The entry point cannot be loaded.
    """
    if name in _SEGMENTERS:
        return _SEGMENTERS[name]()
    installed = entry_points(group=ENTRY_POINT_GROUP)
    if name not in installed.names:
        raise invalid_input("segmenter", name, " or ".join([*_SEGMENTERS, *sorted(installed.names)]))
    try:
        segmenter: Segmenter = installed[name].load()()
    except (ImportError, AttributeError, TypeError) as error:
        raise FailedPreconditionError(f"The segmenter {name!r} cannot be loaded: {error}") from error
    return segmenter
