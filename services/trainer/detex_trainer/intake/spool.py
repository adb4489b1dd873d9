"""Where uploads lie on disk while they are received, and what broke off waits to be continued."""

import hashlib
import logging
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from detex_core.errors import AbortedError, InvalidInputError, invalid_input
from detex_core.name_form import NameForm
from detex_core.object_store.disk import disk_errors
from detex_trainer.intake.upload import received_files
from detex_trainer.intake.upload_parts import ReceivedFile

_UPLOAD_IDS = NameForm("a-z0-9-", "a-z0-9-", 64, "16 to 64 of a-z, 0-9 and hyphens", shortest=16)
_ABANDONED_SECONDS = 3_600
_MAX_BROKEN_UPLOADS_PER_TENANT = 8
_BUSY_RETRY_SECONDS = 1.0

_log = logging.getLogger(__name__)


class UploadSpool:
    """Folders of uploads; for use within one event loop.

    Args:
        folder: Where they lie; created where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._in_use: set[Path] = set()
        with disk_errors("The folder for uploads"):
            folder.mkdir(parents=True, exist_ok=True)
            self.remove_abandoned()

    @contextmanager
    def folder(self, tenant: str, upload_id: str) -> Iterator[Path]:
        """The folder of an upload.

        It is removed at the end, but for an upload with an id that broke off: what came of it waits an hour.

        Raises:
            InvalidInputError: The id is malformed.
            AbortedError: A stream of this upload is still being received (reason `UPLOAD_RUNNING`).
        """
        path = self._path(tenant, upload_id) if upload_id else self._folder / f"once-{secrets.token_hex(16)}"
        if path in self._in_use:
            raise AbortedError(
                "Another stream of this upload is being received; try again in a moment.",
                reason="UPLOAD_RUNNING",
                retry_delay_seconds=_BUSY_RETRY_SECONDS,
            )
        if upload_id:
            self._make_room(path)
        path.mkdir(exist_ok=True)
        self._in_use.add(path)
        broken_off = False
        try:
            yield path
        except InvalidInputError:
            raise
        except BaseException:
            broken_off = bool(upload_id)
            raise
        finally:
            self._in_use.discard(path)
            if not broken_off:
                shutil.rmtree(path, ignore_errors=True)

    def received(self, tenant: str, upload_id: str) -> tuple[ReceivedFile, ...]:
        """What came of an upload that broke off; raises InvalidInputError for a malformed id."""
        return received_files(self._path(tenant, upload_id))

    def remove_abandoned(self) -> None:
        """Remove what nobody has continued for an hour."""
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if path not in self._in_use and time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    _log.info("removing %s, left by an upload that broke off", path)
                    shutil.rmtree(path, ignore_errors=True)

    def _path(self, tenant: str, upload_id: str) -> Path:
        check_upload_id(upload_id)
        # Hashed together: a tenant may name another's upload, and gets a folder of its own.
        return self._folder / f"{_tenant_prefix(tenant)}{hashlib.sha256(upload_id.encode()).hexdigest()[:32]}"

    def _make_room(self, path: Path) -> None:
        prefix = path.name.rpartition("-")[0]
        waiting = [each for each in self._folder.glob(f"{prefix}-*") if each not in self._in_use and each != path]
        for oldest in sorted(waiting, key=lambda each: each.stat().st_mtime)[: -_MAX_BROKEN_UPLOADS_PER_TENANT + 1]:
            shutil.rmtree(oldest, ignore_errors=True)


def check_upload_id(upload_id: str, *, field: str = "upload_id") -> None:
    """Raise InvalidInputError where it is no id of an upload; `field` is its path in the request."""
    if not _UPLOAD_IDS.is_name(upload_id):
        raise invalid_input(field, _UPLOAD_IDS.given(upload_id), _UPLOAD_IDS.accepted)


def _tenant_prefix(tenant: str) -> str:
    return f"resumable-{hashlib.sha256(tenant.encode()).hexdigest()[:16]}-"
