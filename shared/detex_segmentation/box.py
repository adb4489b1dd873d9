"""The part of a photo that the subject lies in."""

from dataclasses import dataclass

from detex_core.errors import invalid_input

_ACCEPTED = "LEFT,TOP,RIGHT,BOTTOM in shares of 0 to 1, with LEFT < RIGHT and TOP < BOTTOM"


@dataclass(frozen=True)
class Box:
    """A rectangle in shares of width and height, 0 to 1, from the upper left corner."""

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        """Raises InvalidInputError, field `box`, for a rectangle that is empty or not inside the photo."""
        if not (0 <= self.left < self.right <= 1 and 0 <= self.top < self.bottom <= 1):
            raise invalid_input("box", f"{self.left:g},{self.top:g},{self.right:g},{self.bottom:g}", _ACCEPTED)

    @classmethod
    def parse(cls, text: str) -> "Box":
        """The box of a text such as `0.1,0,0.8,1`; raises InvalidInputError, field `box`."""
        try:
            left, top, right, bottom = (float(number) for number in text.split(","))
        except ValueError:
            raise invalid_input("box", text, _ACCEPTED) from None
        return cls(left, top, right, bottom)

    def pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in pixels of a photo; right and bottom are exclusive, and no side is 0."""
        left, top = min(int(self.left * width), width - 1), min(int(self.top * height), height - 1)
        return left, top, max(left + 1, round(self.right * width)), max(top + 1, round(self.bottom * height))
