"""What Studio itself keeps: names of products, small copies of photos, pictures with favourites. SQLite and files."""

import json
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS photo_sets (
    training_set_id TEXT PRIMARY KEY, created TEXT NOT NULL, class_word TEXT NOT NULL, photos INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS products (
    concept TEXT PRIMARY KEY, created TEXT NOT NULL, label TEXT NOT NULL, training_set_id TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS pictures (
    picture_id TEXT PRIMARY KEY, created TEXT NOT NULL, concept TEXT NOT NULL, favourite INTEGER NOT NULL DEFAULT 0,
    width INTEGER NOT NULL, height INTEGER NOT NULL, seed INTEGER NOT NULL, prompt TEXT NOT NULL, choice TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS pictures_by_concept ON pictures (concept, created);
"""
ID_BYTES = 12


@dataclass(frozen=True)
class Product:
    """What Studio knows of a concept beside what the trainer knows.

    Attributes:
        concept: Name of the concept.
        label: What people call it.
        training_set_id: Photos that it was learned from.
    """

    concept: str
    label: str
    training_set_id: str


@dataclass(frozen=True)
class KeptPicture:
    """A picture of the history.

    Attributes:
        picture_id: Its id, 24 hexadecimal digits.
        created: When, in ISO format.
        concept: Product that it shows.
        favourite: Whether it is marked.
        width: In pixels.
        height: In pixels.
        seed: Seed.
        prompt: Prompt.
        choice: What the page asked for, to ask for it again.
    """

    picture_id: str
    created: str
    concept: str
    favourite: bool
    width: int
    height: int
    seed: int
    prompt: str
    choice: dict[str, Any]


def is_id(text: str) -> bool:
    """Whether a text can be the id of a picture or a training set: letters, digits and hyphens, nothing of a path."""
    return 0 < len(text) <= 128 and text.isascii() and text.replace("-", "").isalnum()


class Shelf:
    """The folder of one tenant. Safe to use from several threads.

    Args:
        folder: Where; made where it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = Lock()
        self._database = sqlite3.connect(folder / "studio.sqlite", check_same_thread=False)
        self._database.row_factory = sqlite3.Row
        with self._transaction() as database:
            database.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    def keep_photos(self, training_set_id: str, class_word: str, photos: list[bytes]) -> None:
        """Keep small copies of the photos of a training set, WebP each, in their order."""
        folder = self._photo_folder(training_set_id)
        folder.mkdir(parents=True, exist_ok=True)
        for index, data in enumerate(photos):
            (folder / f"{index}.webp").write_bytes(data)
        with self._transaction() as database:
            row = (training_set_id, _now(), class_word, len(photos))
            database.execute("INSERT OR REPLACE INTO photo_sets VALUES (?, ?, ?, ?)", row)

    def photo_count(self, training_set_id: str) -> int:
        """How many small copies there are of a training set."""
        query = "SELECT photos FROM photo_sets WHERE training_set_id = ?"
        with self._transaction() as database:
            row = database.execute(query, (training_set_id,)).fetchone()
        return 0 if row is None else int(row["photos"])

    def photo(self, training_set_id: str, index: int) -> Path | None:
        """The small copy of a photo; None where there is none."""
        path = self._photo_folder(training_set_id) / f"{index}.webp"
        return path if path.is_file() else None

    def drop_photos(self, training_set_id: str) -> int:
        """Delete the small copies of a training set; returns how many are gone."""
        folder = self._photo_folder(training_set_id)
        gone = len(list(folder.glob("*.webp"))) if folder.is_dir() else 0
        shutil.rmtree(folder, ignore_errors=True)
        with self._transaction() as database:
            database.execute("DELETE FROM photo_sets WHERE training_set_id = ?", (training_set_id,))
        return gone

    def name_product(self, concept: str, label: str, training_set_id: str) -> None:
        """Keep what people call a concept, and which photos it is of."""
        with self._transaction() as database:
            row = (concept, _now(), label, training_set_id)
            database.execute("INSERT OR REPLACE INTO products VALUES (?, ?, ?, ?)", row)

    def product(self, concept: str) -> Product | None:
        """What is kept of a concept; None where it was learned without Studio."""
        with self._transaction() as database:
            row = database.execute("SELECT * FROM products WHERE concept = ?", (concept,)).fetchone()
        return None if row is None else Product(row["concept"], row["label"], row["training_set_id"])

    def drop_product(self, concept: str) -> None:
        """Forget the name of a concept."""
        with self._transaction() as database:
            database.execute("DELETE FROM products WHERE concept = ?", (concept,))

    def keep_picture(
        self, concept: str, png: bytes, *, size: tuple[int, int], seed: int, prompt: str, choice: dict[str, Any]
    ) -> KeptPicture:
        """Keep a picture as it came, its provenance inside."""
        picture = KeptPicture(
            secrets.token_hex(ID_BYTES), _now(), concept, False, size[0], size[1], seed, prompt, choice
        )
        path = self._picture_path(picture.picture_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
        row = (picture.picture_id, picture.created, concept, 0, *size, seed, prompt, json.dumps(choice))
        with self._transaction() as database:
            database.execute("INSERT INTO pictures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        return picture

    def pictures(self, concept: str, *, favourites: bool = False) -> list[KeptPicture]:
        """Pictures of a concept, the newest first."""
        query = "SELECT * FROM pictures WHERE concept = ? AND favourite >= ? ORDER BY created DESC, rowid DESC"
        with self._transaction() as database:
            rows = database.execute(query, (concept, int(favourites))).fetchall()
        return [_picture(row) for row in rows]

    def picture(self, picture_id: str) -> KeptPicture | None:
        """One picture; None where there is none."""
        with self._transaction() as database:
            row = database.execute("SELECT * FROM pictures WHERE picture_id = ?", (picture_id,)).fetchone()
        return None if row is None else _picture(row)

    def picture_path(self, picture_id: str) -> Path | None:
        """The file of a picture; None where there is none."""
        path = self._picture_path(picture_id)
        return path if path.is_file() else None

    def mark(self, picture_id: str, favourite: bool) -> None:
        """Mark a picture as a favourite, or not."""
        with self._transaction() as database:
            database.execute("UPDATE pictures SET favourite = ? WHERE picture_id = ?", (int(favourite), picture_id))

    def drop_pictures(self, picture_ids: list[str]) -> int:
        """Delete pictures; returns how many are gone."""
        gone = 0
        for picture_id in picture_ids:
            self._picture_path(picture_id).unlink(missing_ok=True)
            with self._transaction() as database:
                gone += database.execute("DELETE FROM pictures WHERE picture_id = ?", (picture_id,)).rowcount
        return gone

    def _photo_folder(self, training_set_id: str) -> Path:
        if not is_id(training_set_id):
            raise ValueError(f"{training_set_id!r} is no id")
        return self._folder / "photos" / training_set_id

    def _picture_path(self, picture_id: str) -> Path:
        if not is_id(picture_id):
            raise ValueError(f"{picture_id!r} is no id")
        return self._folder / "pictures" / f"{picture_id}.png"

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._database:
            yield self._database


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _picture(row: sqlite3.Row) -> KeptPicture:
    return KeptPicture(
        row["picture_id"],
        row["created"],
        row["concept"],
        bool(row["favourite"]),
        row["width"],
        row["height"],
        row["seed"],
        row["prompt"],
        json.loads(row["choice"]),
    )
