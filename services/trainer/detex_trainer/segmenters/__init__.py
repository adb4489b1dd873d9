"""Segmenters: who finds the subject in photos that came without a mask."""

from detex_core.errors import invalid_input

from detex_trainer.segmenters.color_contrast import ColorContrastSegmenter, SubjectNotFoundError
from detex_trainer.segmenters.protocol import Segmenter
from detex_trainer.segmenters.whole_picture import WholePictureSegmenter

__all__ = ["ColorContrastSegmenter", "Segmenter", "SubjectNotFoundError", "WholePictureSegmenter", "open_segmenter"]

_SEGMENTERS: dict[str, type[Segmenter]] = {
    "color_contrast": ColorContrastSegmenter,
    "none": WholePictureSegmenter,
}


def open_segmenter(name: str) -> Segmenter:
    """The segmenter of that name: `color_contrast`, or `none`, which takes the whole picture.

    Raises:
        InvalidInputError: There is none of that name; field `segmenter`.
    """
    if name not in _SEGMENTERS:
        raise invalid_input("segmenter", name, " or ".join(_SEGMENTERS))
    return _SEGMENTERS[name]()
