"""One picture of all pictures: rows of tiles with captions under headings."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

COLUMNS = 6
TILE = 256
GAP = 24
MARGIN = 48
CAPTION_LINES = 3
CAPTION_SIZE = 15
HEADING_SIZE = 20
TITLE_SIZE = 34
LINE_SPACING = 1.35

BACKGROUND = (250, 249, 246)
INK = (32, 33, 36)
QUIET = (110, 112, 118)
FRAME = (222, 220, 214)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Tile:
    """A picture and what stands under it.

    Attributes:
        image: The picture, any size; scaled to fit a square.
        caption: Wrapped to three lines; what is longer ends in an ellipsis.
    """

    image: Image.Image
    caption: str


@dataclass(frozen=True)
class Section:
    """Tiles under one heading.

    Attributes:
        heading: What they show.
        tiles: In order; a new row begins after six.
    """

    heading: str
    tiles: Sequence[Tile]


def contact_sheet(title: str, subtitle: str, sections: Sequence[Section]) -> Image.Image:
    """Draw the sheet: RGB, 1,752 pixels wide, as tall as its rows need."""
    width = 2 * MARGIN + COLUMNS * TILE + (COLUMNS - 1) * GAP
    height = MARGIN + _line(TITLE_SIZE) + _line(HEADING_SIZE) + sum(_section_height(each) for each in sections) + MARGIN
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    top = MARGIN
    draw.text((MARGIN, top), title, font=_font(TITLE_SIZE), fill=INK)
    top += _line(TITLE_SIZE)
    draw.text((MARGIN, top), subtitle, font=_font(HEADING_SIZE), fill=QUIET)
    top += _line(HEADING_SIZE)
    for section in sections:
        _draw_section(sheet, draw, section, top)
        top += _section_height(section)
    return sheet


def _draw_section(sheet: Image.Image, draw: ImageDraw.ImageDraw, section: Section, top: int) -> None:
    top += GAP
    draw.text((MARGIN, top), section.heading, font=_font(HEADING_SIZE), fill=INK)
    top += _line(HEADING_SIZE)
    for index, tile in enumerate(section.tiles):
        row, column = divmod(index, COLUMNS)
        _draw_tile(sheet, draw, tile, MARGIN + column * (TILE + GAP), top + row * _row_height())


def _draw_tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, left: int, top: int) -> None:
    image = tile.image.convert("RGB")
    scale = TILE / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    image = image.resize(size, Image.Resampling.LANCZOS)
    corner = (left + (TILE - size[0]) // 2, top + (TILE - size[1]) // 2)
    sheet.paste(image, corner)
    draw.rectangle((corner[0] - 1, corner[1] - 1, corner[0] + size[0], corner[1] + size[1]), outline=FRAME)
    for number, line in enumerate(_wrapped(draw, tile.caption)):
        position = (left, top + TILE + CAPTION_SIZE // 2 + number * _line(CAPTION_SIZE))
        draw.text(position, line, font=_font(CAPTION_SIZE), fill=INK)


def _wrapped(draw: ImageDraw.ImageDraw, caption: str) -> list[str]:
    """The caption in lines no wider than a tile; prompts may break after a colon too, inside of words of concepts."""
    font = _font(CAPTION_SIZE)
    lines = [""]
    for piece in caption.replace(":", ":\0").replace(" ", " \0").split("\0"):
        if lines[-1] and draw.textlength((lines[-1] + piece).rstrip(), font=font) > TILE:
            lines.append("")
        lines[-1] += piece
    lines = [line.rstrip() for line in lines]
    if len(lines) > CAPTION_LINES:
        lines = [*lines[: CAPTION_LINES - 1], lines[CAPTION_LINES - 1] + " …"]
    return lines


def _section_height(section: Section) -> int:
    rows = -(-len(section.tiles) // COLUMNS)
    return GAP + _line(HEADING_SIZE) + rows * _row_height()


def _row_height() -> int:
    return TILE + CAPTION_SIZE // 2 + CAPTION_LINES * _line(CAPTION_SIZE)


def _line(size: int) -> int:
    return round(size * LINE_SPACING)


def _font(size: int) -> Font:
    return ImageFont.load_default(size=size)
