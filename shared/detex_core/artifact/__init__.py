"""A concept as it is stored: immutable, hashed, published all at once."""

from detex_core.artifact.archive import ConceptArchive, ConceptPage, DeletedConcepts, StoredManifest
from detex_core.artifact.attempts import delete_abandoned_attempts
from detex_core.artifact.layout import ConceptReference
from detex_core.artifact.manifest import Attribute, ConceptDraft, FileRecord, KeyValueForm, Manifest, UNetForm
from detex_core.artifact.publication import (
    Closing,
    PublicationClosedError,
    close_publication,
    find_publication,
)
from detex_core.artifact.publish import CONCEPT_FILE, publish_concept

__all__ = [
    "CONCEPT_FILE",
    "Attribute",
    "Closing",
    "ConceptArchive",
    "ConceptDraft",
    "ConceptPage",
    "ConceptReference",
    "DeletedConcepts",
    "FileRecord",
    "KeyValueForm",
    "Manifest",
    "PublicationClosedError",
    "StoredManifest",
    "UNetForm",
    "close_publication",
    "delete_abandoned_attempts",
    "find_publication",
    "publish_concept",
]
