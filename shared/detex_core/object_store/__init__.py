"""Objects by key: one protocol, a folder and an S3 server behind it."""

from detex_core.object_store.factory import open_object_store
from detex_core.object_store.folder import FolderStore
from detex_core.object_store.identity import OTHER_STORE, STORE_ABSENT, IdentifiedStore
from detex_core.object_store.protocol import ListedObject, ObjectInfo, ObjectStore

__all__ = [
    "OTHER_STORE",
    "STORE_ABSENT",
    "FolderStore",
    "IdentifiedStore",
    "ListedObject",
    "ObjectInfo",
    "ObjectStore",
    "open_object_store",
]
