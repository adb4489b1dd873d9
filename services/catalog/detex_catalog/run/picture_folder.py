"""The pictures of a run on the disk: each appears whole or not at all."""

import hashlib
import os
import shutil
from pathlib import Path

from detex_catalog.run.journal import FolderUnusableError, sync_folder
from detex_catalog.sharding import Shard
from detex_catalog.table import output_names

PICTURES = "pictures"
REVIEW = "review"


class PictureFolder:
    """`pictures/` for what is accepted, `review/` for what somebody has to look at.

    Args:
        root: Output folder of the run.
        shard: Whose unfinished files are swept away at the start.
    """

    def __init__(self, root: Path, shard: Shard) -> None:
        self.root = root
        self._unfinished = root / f".unfinished-{shard.index}-of-{shard.count}"

    def sweep(self) -> None:
        """Delete what a killed run left half-written."""
        shutil.rmtree(self._unfinished, ignore_errors=True)

    def path(self, kind: str, output: str) -> Path:
        """Where a picture lies.

        Args:
            kind: `pictures` or `review`.
            output: Name of the picture.

        Raises:
            ValueError: The name leads out of the folder.
        """
        output_names.check(output)
        return self.root / kind / output

    def write(self, kind: str, output: str, png: bytes) -> None:
        """Put a picture in its place, over any that lies there.

        Raises:
            FolderUnusableError: It cannot be written, or a link leads out of the folder.
        """
        write_whole(self._place(kind, output), png, self._unfinished)

    def read(self, kind: str, output: str) -> bytes | None:
        """A picture; None where there is none."""
        try:
            return self.path(kind, output).read_bytes()
        except FileNotFoundError:
            return None

    def holds(self, kind: str, output: str, size_bytes: int) -> bool:
        """Whether a picture of this size lies there."""
        path = self.path(kind, output)
        return path.is_file() and path.stat().st_size == size_bytes

    def move(self, output: str, source: str, target: str) -> None:
        """Move a picture between the two folders."""
        place = self._place(target, output)
        self.path(source, output).replace(place)
        sync_folder(place.parent)

    def remove(self, kind: str, output: str) -> None:
        """Delete a picture where there is one."""
        self.path(kind, output).unlink(missing_ok=True)

    def _place(self, kind: str, output: str) -> Path:
        path = self.path(kind, output)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            inside = path.parent.resolve().is_relative_to((self.root / kind).resolve())
        except OSError as error:
            raise FolderUnusableError(f"{path.parent} cannot be made ({error.strerror})") from None
        if not inside:
            raise FolderUnusableError(f"{path.parent} leads out of {self.root / kind}")
        return path


def write_whole(path: Path, data: bytes, unfinished: Path) -> None:
    """Write a file beside its place and rename it once it is on the disk.

    Args:
        path: Its place.
        data: What it holds.
        unfinished: Folder on the same file system.

    Raises:
        FolderUnusableError: It cannot be written.
    """
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        beside = unfinished / hashlib.sha256(str(path).encode("utf-8", "surrogateescape")).hexdigest()
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise FolderUnusableError(f"{path} cannot be written ({error.strerror})") from None
