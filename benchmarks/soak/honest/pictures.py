"""Photos and masks to upload, and what pictures hold."""

import io
import random

from PIL import Image, ImageChops, ImageDraw, ImageStat

from benchmarks.soak.honest.wrong_answer import WrongAnswerError

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
    """What a PNG shows, row by row; raises WrongAnswerError where it is none."""
    return _opened(data).convert(mode).tobytes()


def size(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG that is whole; raises WrongAnswerError where it is not."""
    return _opened(data).size


def mean_difference(one: bytes, other: bytes) -> float:
    """Mean difference of two PNGs, in levels of 0 to 255; raises WrongAnswerError where one is none."""
    difference = ImageChops.difference(_opened(one).convert("RGB"), _opened(other).convert("RGB"))
    return max(ImageStat.Stat(difference).mean)


def _opened(data: bytes) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(data), formats=["PNG"])
        picture.load()
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises
        raise WrongAnswerError(f"a picture of {len(data)} bytes cannot be read: {error}") from error
    return picture
