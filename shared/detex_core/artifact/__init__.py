"""A concept as it is stored: immutable, hashed, published all at once."""

from detex_core.artifact.manifest import Attribute, FileRecord, KeyValueForm, Manifest

__all__ = ["Attribute", "FileRecord", "KeyValueForm", "Manifest"]
