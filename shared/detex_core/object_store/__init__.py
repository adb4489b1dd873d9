"""Objects by key: one protocol, a folder and an S3 server behind it."""

from detex_core.object_store.protocol import ObjectInfo, ObjectStore

__all__ = ["ObjectInfo", "ObjectStore"]
