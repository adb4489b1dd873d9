"""Opens the object store that the settings name."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from detex_core.object_store.folder import FolderStore
from detex_core.object_store.identity import IdentifiableStore, IdentifiedStore
from detex_core.object_store.location import FolderLocation, S3Location, parse_location

if TYPE_CHECKING:
    from detex_core.settings import ObjectStoreSettings

_TRUST_SECONDS = 1.0
"""Before a write, a request to an S3 server is saved for so long; a look at a folder costs nothing."""


def open_object_store(
    settings: "ObjectStoreSettings", *, create: bool = True, note: Callable[[str], str] | None = None
) -> IdentifiedStore:
    """The store that `settings.url` names, of the identity that `settings.identity` names.

    Args:
        settings: Where it lies.
        create: Whether to make a store where none is, if no identity is expected: a folder now; a bucket by the first
            use, for an S3 server need not answer yet.
        note: Given the identity of the store when it is first found; returns the one that is to be expected.

    Raises:
        PermissionDeniedError: The folder may not be created or written.
        ResourceExhaustedError: The disk of the folder is full.
    """
    location = parse_location(settings.url)
    inner: IdentifiableStore
    if isinstance(location, FolderLocation):
        inner, trust_seconds = FolderStore(location.path, create=False), 0.0
    else:
        inner, trust_seconds = _s3_store(location, settings), _TRUST_SECONDS
    store = IdentifiedStore(
        inner, settings.url, expected=settings.identity, create=create, note=note, trust_seconds=trust_seconds
    )
    if isinstance(location, FolderLocation) and create and not settings.identity:
        store.identity()
    return store


def _s3_store(location: S3Location, settings: "ObjectStoreSettings") -> IdentifiableStore:
    if settings.access_key is None or settings.secret_key is None:
        raise ValueError("an s3:// object store needs an access key and a secret key")
    # Imported where one is opened: the S3 client takes as long to load as all else of a process with a folder.
    from detex_core.object_store.minio_store import MinioStore

    return MinioStore(
        location,
        access_key=settings.access_key.get_secret_value(),
        secret_key=settings.secret_key.get_secret_value(),
        connect_timeout_seconds=settings.connect_timeout_seconds,
        read_timeout_seconds=settings.read_timeout_seconds,
        part_size_bytes=settings.part_size_bytes,
        create=False,
    )
