"""All photos of a set on one sheet, each with its subject outlined, to judge masks at a glance."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Final

from PIL import Image, ImageChops, ImageDraw, ImageFilter

_CELL: Final = 320  # pixels
_CAPTION: Final = 18  # pixels
_MARGIN: Final = 8  # pixels
_OUTLINE: Final = (255, 0, 160)


@dataclass(frozen=True)
class JudgedPhoto:
    """A photo and what was found in it.

    Attributes:
        name: The caption.
        photo: Mode RGB.
        mask: Mode L, of the photo's size; None where no subject was found.
    """

    name: str
    photo: Image.Image
    mask: Image.Image | None

    @classmethod
    def reduced(cls, name: str, photo: Image.Image, mask: Image.Image | None) -> "JudgedPhoto":
        """The same in the size that the sheet shows, so that sets of large photos need little memory."""
        small = photo.convert("RGB")
        small.thumbnail((_CELL, _CELL))
        return cls(name, small, None if mask is None else mask.resize(small.size, Image.Resampling.BOX))


def contact_sheet(photos: Sequence[JudgedPhoto]) -> Image.Image:
    """The sheet, about as wide as high: surroundings darkened, subjects outlined; photos without a mask stay dark."""
    columns = max(1, ceil(sqrt(len(photos))))
    rows = max(1, ceil(len(photos) / columns))
    width, height = _CELL + _MARGIN, _CELL + _CAPTION + _MARGIN
    sheet = Image.new("RGB", (columns * width + _MARGIN, rows * height + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for index, each in enumerate(photos):
        left, top = _MARGIN + index % columns * width, _MARGIN + index // columns * height
        shown = _outlined(each)
        sheet.paste(shown, (left + (_CELL - shown.width) // 2, top + (_CELL - shown.height) // 2))
        caption = each.name if each.mask is not None else f"{each.name}: no subject found"
        draw.text((left, top + _CELL + 2), _printable(caption), fill="black")
    return sheet


def _outlined(judged: JudgedPhoto) -> Image.Image:
    photo = judged.photo.convert("RGB")
    photo.thumbnail((_CELL, _CELL))
    dark = Image.blend(photo, Image.new("RGB", photo.size), 0.6)
    if judged.mask is None:
        return dark
    mask = judged.mask.resize(photo.size, Image.Resampling.BILINEAR)
    hard = mask.point([255 if value > 127 else 0 for value in range(256)])
    outline = ImageChops.subtract(hard.filter(ImageFilter.MaxFilter(3)), hard.filter(ImageFilter.MinFilter(3)))
    shown = Image.composite(photo, dark, mask)
    shown.paste(_OUTLINE, mask=outline)
    return shown


def _printable(text: str) -> str:
    # the font that comes with Pillow knows Latin alone
    return text.encode("latin-1", "replace").decode("latin-1")[:50]
