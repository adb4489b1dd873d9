"""At most one publication for each piece of work, however often it is begun and wherever it is interrupted.

The outcome of a piece of work is one object, written only if absent: it says either which version was published, or
that there will be none. Whoever comes second, the same worker after a restart or another one that was taken for dead,
finds the outcome and keeps to it.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from detex_core.artifact.archive import StoredManifest, stored_manifest
from detex_core.artifact.layout import MANIFEST_FILE, ConceptReference, file_key
from detex_core.artifact.manifest import Manifest
from detex_core.errors import AbortedError, AlreadyExistsError, DataLossError, NotFoundError
from detex_core.object_store import ObjectStore


class Closing(BaseModel):
    """Why there will be no publication.

    Attributes:
        reason: Stable reason in capitals.
        message: Human-readable message.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str
    message: str


class Outcome(BaseModel):
    """What came of a piece of work; exactly one of the two is set.

    Attributes:
        manifest: Of the version that was published.
        closing: Why none was and none will be.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    manifest: Manifest | None = None
    closing: Closing | None = None

    @model_validator(mode="after")
    def _check_one(self) -> "Outcome":
        if (self.manifest is None) == (self.closing is None):
            raise ValueError("must be either a manifest or a closing")
        return self


class PublicationClosedError(AbortedError):
    """There will be no publication: the work was ended by someone else."""

    reason = "PUBLICATION_CLOSED"

    def __init__(self, closing: Closing) -> None:
        super().__init__(closing.message)
        self.closing = closing


def find_publication(store: ObjectStore, outcome_key: str) -> StoredManifest | None:
    """What a piece of work has published, completed where that was interrupted; None where its outcome is open.

    Args:
        store: Where concepts and the outcome lie.
        outcome_key: Key of the outcome.

    Raises:
        PublicationClosedError: There will be no publication.
        DataLossError: The outcome is damaged.
        DetexError: As ObjectStore.put.
    """
    outcome = _read(store, outcome_key)
    return None if outcome is None else complete(store, outcome)


def close_publication(store: ObjectStore, outcome_key: str, closing: Closing) -> StoredManifest:
    """See to it that nothing will be published, unless it was already.

    Returns:
        What was published before.

    Raises:
        PublicationClosedError: Nothing was and nothing will be; its `closing` is that of whoever came first.
        DetexError: As ObjectStore.put.
    """
    return complete(store, decide(store, outcome_key, Outcome(closing=closing)))


def decide(store: ObjectStore, outcome_key: str, outcome: Outcome) -> Outcome:
    """Write an outcome where there is none; returns the one that holds."""
    data = outcome.model_dump_json(indent=2).encode()
    try:
        store.put(outcome_key, data, if_absent=True, content_type="application/json")
    except AlreadyExistsError:
        found = _read(store, outcome_key)
        if found is None:
            raise AbortedError(f"{outcome_key} is being written and deleted.", retry_delay_seconds=1) from None
        return found
    return outcome


def complete(store: ObjectStore, outcome: Outcome) -> StoredManifest:
    """Make a decided publication visible; one that was deleted since then stays deleted.

    Raises:
        PublicationClosedError: It was decided that there is none.
    """
    if outcome.closing is not None:
        raise PublicationClosedError(outcome.closing)
    manifest = outcome.manifest
    assert manifest is not None  # noqa: S101 - as the model checks
    reference = ConceptReference(manifest.name, manifest.version)
    key = file_key(manifest.tenant, reference, MANIFEST_FILE)
    data = manifest_bytes(manifest)
    if _files_are_there(store, manifest):
        try:
            store.put(key, data, if_absent=True, content_type="application/json")
        except AlreadyExistsError:
            return stored_manifest(manifest, data)
        if not _files_are_there(store, manifest):  # deleted in between: no reader may see half of it
            store.delete(key)
    return stored_manifest(manifest, data)


def published_version(store: ObjectStore, outcome_key: str) -> str:
    """The version that a piece of work has published; empty where it was decided that there is none.

    Raises:
        NotFoundError: Nothing is decided yet.
        DataLossError: The outcome is damaged.
    """
    outcome = _read(store, outcome_key)
    if outcome is None:
        raise NotFoundError(f"There is no outcome {outcome_key}.")
    return "" if outcome.manifest is None else outcome.manifest.version


def manifest_bytes(manifest: Manifest) -> bytes:
    """The contents of manifest.json."""
    return manifest.model_dump_json(indent=2).encode()


def _files_are_there(store: ObjectStore, manifest: Manifest) -> bool:
    reference = ConceptReference(manifest.name, manifest.version)
    try:
        for name in manifest.files:
            store.stat(file_key(manifest.tenant, reference, name))
    except NotFoundError:
        return False
    return True


def _read(store: ObjectStore, outcome_key: str) -> Outcome | None:
    try:
        data = store.get(outcome_key)
    except NotFoundError:
        return None
    try:
        return Outcome.model_validate_json(data)
    except ValidationError as error:
        raise DataLossError(f"The outcome {outcome_key} is damaged.") from error
