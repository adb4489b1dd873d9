"""The fingerprint of a base model: what tells whether a concept was learned on this very model."""

import hashlib
import threading
from pathlib import Path

_CHUNK_BYTES = 4 * 1024**2
_known: dict[tuple[str, int, int], str] = {}
_lock = threading.Lock()


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file; remembered in this process by path, size and modification time."""
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns)
    with _lock:
        if key in _known:
            return _known[key]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    with _lock:
        _known[key] = digest.hexdigest()
    return _known[key]


def fingerprint(folder: Path, files: list[Path]) -> str:
    """SHA-256 (hex) over contents and names of files; the names count relative to the folder, wherever it lies."""
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(folder).as_posix(), path) for path in files):
        digest.update(f"{name}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()
