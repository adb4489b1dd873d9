"""Head dims that are no power of two, in two parts that are: 40 = 32 + 8, 80 = 64 + 16, 160 = 128 + 32.

Tensor cores want at least 16 along the sum of a product, so a second part below that is filled up to 16 (40 takes
32 + 16). Padded to one power of two instead, 40 and 80 would cost a third and 60 % more arithmetic.
"""

MIN_PART = 16


def split_head(head_dim: int) -> tuple[int, int]:
    """Widths of the two parts that a head of this many dims is computed in; the second is 0 where one is enough.

    Args:
        head_dim: 1 or more.
    """
    if head_dim <= MIN_PART:
        return MIN_PART, 0
    first = 1 << (head_dim.bit_length() - 1)
    rest = head_dim - first
    if rest == 0:
        return first, 0
    return first, max(MIN_PART, 1 << (rest - 1).bit_length())


def padded_head(head_dim: int) -> tuple[int, int]:
    """The head in one part: the next power of two, for comparison."""
    return max(MIN_PART, 1 << (head_dim - 1).bit_length()), 0
