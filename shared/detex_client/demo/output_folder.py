"""The demonstration's folder: emptied at the start, but only where a demonstration has made it."""

import shutil
from pathlib import Path

from detex_client.errors import refused

MARKER = ".detex-demo"


class OutputFolder:
    """Where a demonstration keeps its data, logs, pictures and facts.

    Args:
        root: The folder; made if missing.

    Raises:
        DetexClientError: INVALID_ARGUMENT for a folder that holds files of others.
        OSError: It cannot be made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        if self.root.is_dir():
            if any(self.root.iterdir()) and not (self.root / MARKER).is_file():
                raise refused(
                    "--out", f"{root}, which has other files", "a new or empty folder, or that of an earlier demo"
                )
        elif self.root.exists():
            raise refused("--out", f"{root}, which is a file", "a folder")
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / MARKER).touch()
        for folder in (self.data, self.logs, self.pictures):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.contact_sheet, self.summary):
            file.unlink(missing_ok=True)

    @property
    def data(self) -> Path:
        """Object store and job database of the services."""
        return self.root / "data"

    @property
    def logs(self) -> Path:
        """Logs of the services."""
        return self.root / "logs"

    @property
    def pictures(self) -> Path:
        """Pictures as they came, a folder per subject."""
        return self.root / "pictures"

    @property
    def contact_sheet(self) -> Path:
        """All pictures in one."""
        return self.root / "contact_sheet.png"

    @property
    def summary(self) -> Path:
        """The facts."""
        return self.root / "summary.json"
