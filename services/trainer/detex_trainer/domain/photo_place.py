"""How errors name a photo: by its index and by the file name that its caller gave it."""

_MOST_CHARACTERS = 80


def photo_place(photo_index: int, file_name: str, *, is_mask: bool = False) -> str:
    """For example `photo 2 (cup.jpg)` or `mask of photo 2 (cup_mask.png)`."""
    photo = f"photo {photo_name(photo_index, file_name)}"
    return f"mask of {photo}" if is_mask else photo


def photo_name(photo_index: int, file_name: str) -> str:
    """The same without what it is: `2 (cup.jpg)`, or `2` where there is no file name."""
    if not file_name:
        return str(photo_index)
    name = file_name if file_name.isprintable() else ascii(file_name)[1:-1]
    shown = name if len(name) <= _MOST_CHARACTERS else f"{name[: _MOST_CHARACTERS - 3]}..."
    return f"{photo_index} ({shown})"
