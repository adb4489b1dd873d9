"""Where the installed model lies: one file, and a record that says what it is."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detex_core.errors import DataLossError, FailedPreconditionError

FOLDER_VARIABLE: Final = "DETEX_SEGMENTER_FOLDER"
_RECORD: Final = "segmenter.json"


class Normalization(StrEnum):
    """How a model wants colours of 0 to 255: `isnet` is (c - 128) / 256, `imagenet` mean and deviation of ImageNet."""

    ISNET = "isnet"
    IMAGENET = "imagenet"


class InstalledModel(BaseModel):
    """What is installed.

    Attributes:
        path: The model's file.
        sha256: Of the file, in hexadecimal digits.
        source: Where it came from, human-readable.
        normalization: How it wants colours.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    source: str
    normalization: Normalization


class ModelStore:
    """A folder with at most one model in use.

    Args:
        folder: None takes the variable `DETEX_SEGMENTER_FOLDER`, or else `detex/segmenter` in the user's cache folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or _default_folder()

    def installed(self) -> InstalledModel:
        """The model in use.

        Raises:
            FailedPreconditionError: None is installed.
            DataLossError: Record or file are damaged, or the file is gone.
        """
        try:
            model = InstalledModel.model_validate_json((self.folder / _RECORD).read_bytes())
        except FileNotFoundError:
            raise FailedPreconditionError(
                f"No segmenter is installed in {self.folder}: install one with  detex segmenter install"
            ) from None
        except ValidationError:
            raise DataLossError(f"{self.folder / _RECORD} is damaged: reinstall the segmenter.") from None
        try:
            sha256 = hashlib.sha256(model.path.read_bytes()).hexdigest()
        except FileNotFoundError:
            sha256 = ""
        if sha256 != model.sha256:
            raise DataLossError(f"{model.path} is damaged or missing: reinstall the segmenter.")
        return model

    def keep(
        self, data: bytes, source: str, normalization: Normalization, *, check: Callable[[InstalledModel], None]
    ) -> InstalledModel:
        """Make a model the one in use; the record changes last, so that no half-written or wrong model is ever used.

        Args:
            data: The model's file.
            source: Where it came from, human-readable.
            normalization: How it wants colours.
            check: Tries the model once it is a file; where it raises, what was installed before stays in use.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        sha256 = hashlib.sha256(data).hexdigest()
        path = (self.folder / f"{sha256[:16]}.onnx").resolve()
        model = InstalledModel(path=path, sha256=sha256, source=source, normalization=normalization)
        known = path.exists()
        _replace(path, data)
        try:
            check(model)
        except BaseException:
            if not known:
                path.unlink(missing_ok=True)
            raise
        _replace(self.folder / _RECORD, model.model_dump_json(indent=2).encode())
        for other in self.folder.glob("*.onnx"):
            if other.resolve() != path:
                other.unlink(missing_ok=True)
        return model


def _default_folder() -> Path:
    given = os.environ.get(FOLDER_VARIABLE)
    if given:
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "detex" / "segmenter"


def _replace(path: Path, data: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
