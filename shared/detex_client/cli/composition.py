"""Options of `detex generate` that place subjects and edit photos."""

from pathlib import Path

from detex_client.errors import refused
from detex_client.picture_content import Box, Edit, EditKind, Region

_BOX = "NAME=LEFT,TOP,RIGHT,BOTTOM as fractions of 0 to 1, or NAME=MASK.png"


def regions(pairs: list[str]) -> tuple[Region, ...]:
    """Regions of values such as `my-mug=0,0.2,0.5,1` and `my-mug=mask.png`.

    Raises:
        DetexClientError: A value is neither.
    """
    return tuple(_region(pair) for pair in pairs)


def edit(
    image: Path | None, mask: Path | None, *, keep_product: bool, strength: float | None, shadow: float
) -> Edit | None:
    """What the options about a photo ask for; None where there is no photo.

    Raises:
        DetexClientError: Options that only make sense together with others.
    """
    if image is None:
        for name, given in (("--mask", mask), ("--strength", strength), ("--shadow", shadow or None)):
            if given is not None:
                raise refused(name, "no --image", "used with --image")
        if keep_product:
            raise refused("--keep-product", "no --image", "used with --image")
        return None
    kind = EditKind.KEEP_PRODUCT if keep_product else EditKind.IMAGE_TO_IMAGE if mask is None else EditKind.INPAINT
    return Edit(kind, image, mask, strength, shadow)


def _region(pair: str) -> Region:
    name, equals, place = pair.partition("=")
    if not (name and equals and place):
        raise refused("--region", pair, _BOX)
    numbers = place.split(",")
    if len(numbers) == 1:
        return Region(name, Path(place))
    try:
        left, top, right, bottom = (float(number) for number in numbers)
    except ValueError:
        raise refused("--region", pair, _BOX) from None
    return Region(name, Box(left, top, right, bottom))
