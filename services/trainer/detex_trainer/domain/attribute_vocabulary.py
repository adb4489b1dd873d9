"""Plain words that a concept's words can begin at, by what they say something about.

They are everyday English, of no base model in particular; which of them fits a photo, the base model decides (see
`learning.methods.plain_words`). A word that a base model does not know explains nothing there, and is not chosen.
Deployments whose base model reads another language set words of their own.
"""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from detex_trainer.domain.attributes import Region

_POSES = (
    "standing, upright, lying, lying down, flat, sitting, leaning, tilted, slanted, diagonal, sideways, upside "
    "down, inverted, turned, rotated, floating, hovering, flying, hanging, falling, jumping, running, walking, "
    "kneeling, crouching, curled, stretched, bent, front, back, side, profile, top, bottom, seen from above, seen "
    "from below, from behind, distant, facing left, facing right, open, closed, folded, sleeping"
)
_PLACES = (
    "beach, sea, ocean, underwater, lake, river, pool, rain, desert, sand, forest, jungle, tree, meadow, grass, "
    "field, garden, flowers, park, mountain, rocks, cave, snow, ice, sky, clouds, sunset, sunrise, night, space, "
    "moon, city, street, road, alley, bridge, market, shop, station, stadium, church, castle, ruins, house, "
    "kitchen, bathroom, bedroom, living room, office, library, classroom, studio, stage, museum, restaurant, bar, "
    "workshop, garage, gym, balcony, window, door, wall, brick wall, concrete, curtain, floor, wooden floor, table, "
    "wooden table, desk, shelf, carpet, sofa, bed, chair, tiles, chessboard, metal, stone, wood, leather, fabric, "
    "paper, plain, white, black, grey, blue, green, red, yellow, pink, brown, colorful, dark, bright, blurry"
)
_MOODS = (
    "soft, hard, warm, cold, golden, dim, bright, dark, neon, natural, artificial, day, night, morning, evening, "
    "sunny, cloudy, rainy, foggy, snowy, stormy, summer, autumn, winter, spring, backlit, colorful, pale, vivid, "
    "vintage, modern, minimal, painted, drawn, sketched, cartoon, realistic, blurry, sharp, grainy, black and white"
)

_APPEARANCES = (
    "white, black, grey, silver, golden, red, orange, yellow, green, turquoise, light blue, blue, dark blue, purple, "
    "pink, brown, beige, light, dark, bright, pale, colorful, transparent, plain, striped, dotted, spotted, checkered, "
    "patterned, flowered, printed, wooden, metal, steel, glass, plastic, ceramic, leather, fabric, woolen, paper, "
    "stone, rubber, shiny, glossy, matte, smooth, rough, soft, furry, knitted, woven, old, new, round, square, flat, "
    "thin, thick, tall, short, long, wide, narrow, small, large, curved, pointed"
)

PlainWord = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]
Words = Annotated[tuple[PlainWord, ...], Field(max_length=1_000)]


def _split(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(","))


class AttributeVocabulary(BaseModel):
    """Plain words by the region of the picture that they say something about; a few of them phrases.

    Attributes:
        subject: Of the subject's pose and the like, at most 1,000.
        background: Of places.
        everywhere: Of light, weather and the like.
        appearance: Of what the subject looks like in every photo: colour, pattern, material, shape.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    subject: Words = _split(_POSES)
    background: Words = _split(_PLACES)
    everywhere: Words = _split(_MOODS)
    appearance: Words = _split(_APPEARANCES)

    @field_validator("subject", "background", "everywhere", "appearance")
    @classmethod
    def _each_word_once(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(words))

    def of(self, region: Region) -> tuple[str, ...]:
        """Words for attributes of a region, all different."""
        words: tuple[str, ...] = getattr(self, region.value)
        return words
