"""Contact sheets: a subject's photos, and what each method makes of the same prompts with the same seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from textwrap import wrap
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from benchmarks.quality.picture_plan import PictureRequest, Task

_COLUMNS: Final = {Task.FREE: 2, Task.SCENE: 4, Task.POSE: 3, Task.BOTH: 2, Task.REUSE: 3, Task.OTHER_CLASS: 1}
_CELL: Final = 128
_GAP: Final = 4
_LABEL_WIDTH: Final = 150
_CAPTION_HEIGHT: Final = 52
_BACKGROUND: Final = (255, 255, 255)
_INK: Final = (40, 40, 40)
_Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


@dataclass(frozen=True)
class SheetRow:
    """One row: a label, and pictures by what was asked."""

    label: str
    pictures: Mapping[PictureRequest, Image.Image]


def contact_sheet(
    title: str,
    photos: Sequence[tuple[str, Image.Image]],
    held_out: Sequence[Image.Image],
    requests: Sequence[PictureRequest],
    rows: Sequence[SheetRow],
) -> Image.Image:
    """Draw a sheet.

    Args:
        title: Who the subject is.
        photos: Training photos, each with what it shows.
        held_out: Further photos of the subject.
        requests: All requests of the subject; some of each task are shown.
        rows: One for each method; a picture that a method was not asked for stays empty.
    """
    chosen = _chosen(requests)
    photos = photos[: len(chosen)]
    held_out = held_out[: max(0, len(chosen) - len(photos))]
    width = _LABEL_WIDTH + max(len(chosen), 1) * (_CELL + _GAP)
    height = 2 * _CAPTION_HEIGHT + (1 + len(rows)) * (_CELL + _GAP)
    sheet = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=11)
    _write(draw, (4, 4), title, 22, font)
    top = _CAPTION_HEIGHT
    shown = [*photos, *(("held out", picture) for picture in held_out)]
    for column, (caption, picture) in enumerate(shown):
        left = _LABEL_WIDTH + column * (_CELL + _GAP)
        _write(draw, (left, 4), caption, 16, font)
        _paste(sheet, picture, left, top)
    _write(draw, (4, top + 4), "photos to learn from, then held-out ones", 22, font)
    top += _CELL + _GAP
    for column, request in enumerate(chosen):
        _write(draw, (_LABEL_WIDTH + column * (_CELL + _GAP), top + 2), _caption(request), 16, font)
    top += _CAPTION_HEIGHT
    for row in rows:
        _write(draw, (4, top + 4), row.label, 22, font)
        for column, request in enumerate(chosen):
            if request in row.pictures:
                _paste(sheet, row.pictures[request], _LABEL_WIDTH + column * (_CELL + _GAP), top)
        top += _CELL + _GAP
    return sheet


def _chosen(requests: Sequence[PictureRequest]) -> list[PictureRequest]:
    """Some of each task, spread over what there is of it."""
    chosen = []
    for task, group in groupby(requests, key=lambda request: request.task):
        members = list(group)
        wanted = min(_COLUMNS.get(task, 0), len(members))
        chosen += [members[place * len(members) // wanted] for place in range(wanted)]
    return chosen


def _caption(request: PictureRequest) -> str:
    """What was asked, in few words."""
    if request.task is Task.REUSE:
        return f"words of photos: {request.pose}, {request.scene}"
    if request.task is Task.OTHER_CLASS:
        return f"{request.class_word} in a photo's {request.scene}"
    asked = ", ".join(word for word in (request.pose, request.scene) if word)
    return asked or "nothing else"


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, letters: int, font: _Font) -> None:
    draw.multiline_text(place, "\n".join(wrap(text, letters)), fill=_INK, font=font, spacing=1)


def _paste(sheet: Image.Image, picture: Image.Image, left: int, top: int) -> None:
    sheet.paste(picture.resize((_CELL, _CELL), Image.Resampling.BICUBIC), (left, top))
