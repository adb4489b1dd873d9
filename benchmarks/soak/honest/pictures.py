"""Photos and masks to upload, and what pictures hold."""

import io
import random

from PIL import Image, ImageDraw

SIDE = 96
"""Width and height of the photos, in pixels."""


def photo(rng: random.Random) -> Image.Image:
    """A picture of coloured tiles, which no other equals."""
    tiles = Image.new("RGB", (SIDE // 8, SIDE // 8))
    tiles.putdata([tuple(rng.randbytes(3)) for _ in range(tiles.width * tiles.height)])
    return tiles.resize((SIDE, SIDE), Image.Resampling.NEAREST)


def mask(rng: random.Random) -> Image.Image:
    """White ellipse on black, at a place of its own."""
    left, top = rng.randrange(SIDE // 3), rng.randrange(SIDE // 3)
    picture = Image.new("L", (SIDE, SIDE))
    size = rng.randrange(SIDE // 3, SIDE // 2)
    ImageDraw.Draw(picture).ellipse((left, top, left + size, top + size), fill=255)
    return picture


def png(picture: Image.Image) -> bytes:
    """The picture as a file."""
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def pixels(data: bytes, mode: str) -> bytes:
    """What a picture file shows, row by row; raises what Pillow raises where it is none."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        return picture.convert(mode).tobytes()


def size(data: bytes) -> tuple[int, int]:
    """Width and height of a picture file that is whole."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
        picture.load()
        return picture.size
