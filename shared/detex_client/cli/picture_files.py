"""Files for pictures, named by prompt and seed; nothing is ever overwritten."""

import re
from pathlib import Path

LONGEST_SLUG_CHARACTERS = 60
MOST_NAMESAKES = 10_000


def slug(prompt: str) -> str:
    """The prompt as part of a file name: `[my-mug] on a beach!` is `my-mug-on-a-beach`; never empty."""
    words = re.sub(r"[^\w]+", "-", prompt.lower()).strip("-_")
    return words[:LONGEST_SLUG_CHARACTERS].rstrip("-_") or "picture"


def write_picture(folder: Path, stem: str, png: bytes) -> Path:
    """Write a PNG as `<stem>.png`, or `<stem>_2.png` and so on where that exists; the folder is made if missing.

    Raises:
        OSError: The folder or the file cannot be written; no part of the file stays behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, MOST_NAMESAKES):
        path = folder / (f"{stem}.png" if number == 1 else f"{stem}_{number}.png")
        try:
            with path.open("xb") as file:
                file.write(png)
        except FileExistsError:
            continue
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path
    raise FileExistsError(17, f"more than {MOST_NAMESAKES} files of one name", str(folder / stem))
