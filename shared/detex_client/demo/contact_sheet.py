"""One picture of all pictures: rows of tiles with captions under headings."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

COLUMNS = 6
TILE = 256
GAP = 24
MARGIN = 48
CAPTION_LINES = 3
CAPTION_SIZE = 17
HEADING_SIZE = 22
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
    """Tiles under one heading; a row is as tall as the longest caption of its section asks.

    Attributes:
        heading: What they show.
        tiles: In order; a new row begins after six.
    """

    heading: str
    tiles: Sequence[Tile]


def contact_sheet(title: str, subtitle: str, sections: Sequence[Section]) -> Image.Image:
    """Draw the sheet: RGB, 1,752 pixels wide, as tall as its rows need."""
    width = 2 * MARGIN + COLUMNS * TILE + (COLUMNS - 1) * GAP
    heights = [_section_height(section) for section in sections]
    height = 2 * MARGIN + _line(TITLE_SIZE) + _line(HEADING_SIZE) + sum(heights)
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    top = MARGIN
    draw.text((MARGIN, top), title, font=_font(TITLE_SIZE), fill=INK)
    top += _line(TITLE_SIZE)
    draw.text((MARGIN, top), subtitle, font=_font(HEADING_SIZE), fill=QUIET)
    top += _line(HEADING_SIZE)
    for section, section_height in zip(sections, heights, strict=True):
        _draw_section(sheet, draw, section, top)
        top += section_height
    return sheet


def _draw_section(sheet: Image.Image, draw: ImageDraw.ImageDraw, section: Section, top: int) -> None:
    top += 2 * GAP
    draw.text((MARGIN, top), section.heading, font=_font(HEADING_SIZE), fill=INK)
    top += _line(HEADING_SIZE)
    for index, tile in enumerate(section.tiles):
        row, column = divmod(index, COLUMNS)
        _draw_tile(sheet, draw, tile, MARGIN + column * (TILE + GAP), top + row * _row_height(section))


def _draw_tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, left: int, top: int) -> None:
    image = tile.image.convert("RGB")
    scale = TILE / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    image = image.resize(size, Image.Resampling.LANCZOS)
    corner = (left + (TILE - size[0]) // 2, top + (TILE - size[1]) // 2)
    sheet.paste(image, corner)
    draw.rectangle((corner[0] - 1, corner[1] - 1, corner[0] + size[0], corner[1] + size[1]), outline=FRAME)
    for number, line in enumerate(_wrapped(tile.caption)):
        position = (left, top + TILE + CAPTION_SIZE // 2 + number * _line(CAPTION_SIZE))
        draw.text(position, line, font=_font(CAPTION_SIZE), fill=INK)


def _wrapped(caption: str) -> list[str]:
    """The caption in lines no wider than a tile; prompts may break after a colon too, inside of words of concepts."""
    font = _font(CAPTION_SIZE)
    lines = [""]
    for piece in caption.replace(":", ":\0").replace(" ", " \0").split("\0"):
        if lines[-1] and font.getlength((lines[-1] + piece).rstrip()) > TILE:
            lines.append("")
        lines[-1] += piece
    lines = [line.rstrip() for line in lines]
    if len(lines) > CAPTION_LINES:
        lines = [*lines[: CAPTION_LINES - 1], lines[CAPTION_LINES - 1] + " …"]
    return lines


def _section_height(section: Section) -> int:
    rows = -(-len(section.tiles) // COLUMNS)
    return 2 * GAP + _line(HEADING_SIZE) + rows * _row_height(section)


def _row_height(section: Section) -> int:
    lines = max((len(_wrapped(tile.caption)) for tile in section.tiles), default=0)
    return TILE + CAPTION_SIZE // 2 + lines * _line(CAPTION_SIZE)


def _line(size: int) -> int:
    return round(size * LINE_SPACING)


def _font(size: int) -> Font:
    return ImageFont.load_default(size=size)
