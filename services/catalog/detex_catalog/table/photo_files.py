"""Photos that a catalog names: found, hashed, and looked into before anything is sent."""

import hashlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from detex_catalog.table.faults import shown
from detex_client import DetexClientError, TrainingPhoto, find_training_photos
from detex_core.errors import InvalidInputError
from detex_core.images import MAX_IMAGE_BYTES, decode_mask, decode_photo, read_size

THREADS = 4


@dataclass(frozen=True)
class PhotoFile:
    """A photo with its mask, and what both are by content.

    Attributes:
        photo: The files.
        sha256: SHA-256 (hex) of the photo.
        mask_sha256: SHA-256 (hex) of its mask; empty without one.
    """

    photo: TrainingPhoto
    sha256: str
    mask_sha256: str


class PhotoFiles:
    """Finds and checks photos; each file is read once however many rows name it.

    Args:
        folder: What relative paths begin at.
        known: SHA-256 of photos and masks that an earlier run has decoded; these are hashed alone.
    """

    def __init__(self, folder: Path, known: Collection[str] = ()) -> None:
        self._folder = folder
        self._known = known
        self._found: dict[tuple[str, ...], tuple[PhotoFile, ...]] = {}
        self._refused: dict[tuple[str, ...], str] = {}

    def find(self, sources: tuple[str, ...]) -> tuple[PhotoFile, ...]:
        """The photos of files and folders, with the masks beside them.

        Raises:
            ValueError: One is missing, unreadable or no picture; the message names all that are.
        """
        if sources in self._refused:
            raise ValueError(self._refused[sources])
        if sources not in self._found:
            try:
                self._found[sources] = self._read(sources)
            except ValueError as error:
                self._refused[sources] = str(error)
                raise
        return self._found[sources]

    def _read(self, sources: tuple[str, ...]) -> tuple[PhotoFile, ...]:
        missing = [source for source in sources if not (self._folder / source).exists()]
        if missing:
            raise ValueError(f"must be files and folders that exist, got {', '.join(map(shown, missing))}")
        try:
            photos = find_training_photos([self._folder / source for source in sources])
        except DetexClientError as error:
            raise ValueError(error.message) from None
        results = list(self._threads.map(self._checked, photos))
        wrong = [result for result in results if isinstance(result, str)]
        if wrong:
            raise ValueError("; ".join(wrong))
        return tuple(result for result in results if isinstance(result, PhotoFile))

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(THREADS, thread_name_prefix="photos")

    def _checked(self, photo: TrainingPhoto) -> PhotoFile | str:
        try:
            data = _bytes(photo.photo)
            sha256, mask_sha256 = hashlib.sha256(data).hexdigest(), ""
            size = read_size(data, field=photo.photo.name)
            if sha256 not in self._known:
                decode_photo(data, field=photo.photo.name)
            if photo.mask is not None:
                mask = _bytes(photo.mask)
                mask_sha256 = hashlib.sha256(mask).hexdigest()
                if mask_sha256 not in self._known:
                    decode_mask(mask, field=photo.mask.name, size=size)
        except OSError as error:
            return f"{error.filename} cannot be read ({error.strerror})"
        except InvalidInputError as error:
            return error.message
        return PhotoFile(photo, sha256, mask_sha256)


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_IMAGE_BYTES + 1)
