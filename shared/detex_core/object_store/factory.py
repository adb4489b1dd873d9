"""Opens the object store that the settings name."""

from typing import TYPE_CHECKING

from detex_core.object_store.folder import FolderStore
from detex_core.object_store.location import FolderLocation, parse_location
from detex_core.object_store.minio_store import MinioStore
from detex_core.object_store.protocol import ObjectStore

if TYPE_CHECKING:
    from detex_core.settings import ObjectStoreSettings


def open_object_store(settings: "ObjectStoreSettings") -> ObjectStore:
    """The store that `settings.url` names.

    A folder is created where it is missing. An S3 server need not answer yet: its bucket is created, where that is
    allowed, by the first write or `check` that finds it missing.

    Raises:
        PermissionDeniedError: The folder may not be created or written.
        ResourceExhaustedError: The disk of the folder is full.
    """
    location = parse_location(settings.url)
    if isinstance(location, FolderLocation):
        return FolderStore(location.path)
    if settings.access_key is None or settings.secret_key is None:
        raise ValueError("an s3:// object store needs an access key and a secret key")
    return MinioStore(
        location,
        access_key=settings.access_key.get_secret_value(),
        secret_key=settings.secret_key.get_secret_value(),
        connect_timeout_seconds=settings.connect_timeout_seconds,
        read_timeout_seconds=settings.read_timeout_seconds,
        part_size_bytes=settings.part_size_bytes,
    )
