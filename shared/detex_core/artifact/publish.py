"""Publishing a concept: all files first, the manifest last and only if absent, so that readers see all or nothing."""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from detex_core.artifact.archive import StoredManifest, stored_manifest
from detex_core.artifact.attempts import forget_attempt, note_attempt
from detex_core.artifact.layout import (
    MANIFEST_FILE,
    ConceptReference,
    concept_prefix,
    file_key,
    manifest_reference,
)
from detex_core.artifact.manifest import ConceptDraft, FileRecord, Manifest, concept_version
from detex_core.artifact.publication import Outcome, complete, decide, manifest_bytes
from detex_core.errors import AbortedError, AlreadyExistsError, DetexError
from detex_core.object_store import ObjectStore

CONCEPT_FILE = "concept.safetensors"

_ATTEMPTS = 5
_CONTENT_TYPES = {".json": "application/json", ".png": "image/png", ".safetensors": "application/octet-stream"}


def publish_concept(
    store: ObjectStore,
    draft: ConceptDraft,
    files: Mapping[str, bytes | Path],
    *,
    create_time: datetime | None = None,
    outcome_key: str = "",
    labelled: Mapping[str, Callable[[str], bytes]] | None = None,
) -> StoredManifest:
    """Publish a new version of a concept.

    The version is later than every version that the concept has, even where clocks disagree: at least a second after
    the newest. When this raises, no reader sees anything of the new version; files that lie there without a manifest go
    when the concept is deleted, or when the work under `outcome_key` has ended (`delete_abandoned_attempts`).

    Args:
        store: Where to.
        draft: All that the manifest says but version, files and time.
        files: Content by file name, `concept.safetensors` among them; a path stands for the content of that file.
        create_time: Time of publication; now where absent.
        outcome_key: Key of the object that decides what is published (see `detex_core.artifact.publication`): for one
            key there is one publication at most, and all later calls return that. Empty publishes each time.
        labelled: Further files by name that say which version they belong to: each is made for the version that it is
            given, always the same for the same. The version does not depend on them.

    Raises:
        ValueError: `concept.safetensors` is missing.
        pydantic.ValidationError: A file name is not of the form that manifests take.
        PublicationClosedError: It was decided under `outcome_key` that nothing is published.
        AbortedError: Others publish the same concept faster than this call finds a free version.
        DetexError: As ObjectStore.put.
    """
    if CONCEPT_FILE not in files:
        raise ValueError(f"a concept needs {CONCEPT_FILE}; given are {sorted(files)}")
    records = {name: _record(content) for name, content in sorted(files.items())}
    content = {"outcome": outcome_key} if outcome_key else {}
    content |= {name: record.sha256 for name, record in records.items()}
    content_sha256 = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    wanted = (create_time or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)
    for _ in range(_ATTEMPTS):
        time = max(wanted, _first_free_time(store, draft, wanted))
        version = concept_version(time, content_sha256)
        all_files = {**files, **{name: make(version) for name, make in (labelled or {}).items()}}
        all_records = {name: records.get(name) or _record(content) for name, content in sorted(all_files.items())}
        manifest = Manifest(**dict(draft), version=version, files=all_records, create_time=time)
        try:
            if outcome_key:
                note_attempt(store, outcome_key, draft.tenant, ConceptReference(draft.name, version))
            _write_files(store, manifest, all_files)
            if outcome_key:
                return _decided(store, manifest, outcome_key)
            return _write_manifest(store, manifest)
        except AlreadyExistsError:
            wanted = time + timedelta(seconds=1)
    raise AbortedError(f"Concept {draft.name!r} is being published by many at once.", retry_delay_seconds=1)


def _record(content: bytes | Path) -> FileRecord:
    if isinstance(content, bytes):
        return FileRecord(size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    with content.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return FileRecord(size_bytes=file.tell(), sha256=sha256)


def _first_free_time(store: ObjectStore, draft: ConceptDraft, wanted: datetime) -> datetime:
    listed = store.list(concept_prefix(draft.tenant, draft.name))
    versions = [reference.version for each in listed if (reference := manifest_reference(each.key))]
    if not versions:
        return wanted
    newest = datetime.strptime(max(versions).partition("-")[0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return newest + timedelta(seconds=1)


def _write_files(store: ObjectStore, manifest: Manifest, files: Mapping[str, bytes | Path]) -> None:
    """Write all but the manifest; raises AlreadyExistsError where another has taken this version."""
    reference = ConceptReference(manifest.name, manifest.version)
    written: list[str] = []
    try:
        for name, content in files.items():
            key = file_key(manifest.tenant, reference, name)
            if _write_file(store, key, content, manifest.files[name].sha256, _CONTENT_TYPES[Path(name).suffix]):
                written.append(key)
    except AlreadyExistsError:
        raise
    except DetexError:
        # Half a version does not stay; what another call has written of it is that call's.
        for key in written:
            with suppress(DetexError):
                store.delete(key)
        raise


def _write_file(store: ObjectStore, key: str, content: bytes | Path, sha256: str, content_type: str) -> bool:
    """Write a file where there is none of that content; whether it was written now."""
    is_new = True
    try:
        if isinstance(content, bytes):
            found = store.put(key, content, if_absent=True, content_type=content_type)
        else:
            found = store.put_file(key, content, if_absent=True, content_type=content_type)
    except AlreadyExistsError:
        found, is_new = store.stat(key), False  # of an interrupted publication with the same content, or of another
    if found.sha256 != sha256:
        raise AlreadyExistsError(f"There is an object {key} with other content.")
    return is_new


def _write_manifest(store: ObjectStore, manifest: Manifest) -> StoredManifest:
    data = manifest_bytes(manifest)
    key = file_key(manifest.tenant, ConceptReference(manifest.name, manifest.version), MANIFEST_FILE)
    store.put(key, data, if_absent=True, content_type=_CONTENT_TYPES[".json"])
    return stored_manifest(manifest, data)


def _decided(store: ObjectStore, manifest: Manifest, outcome_key: str) -> StoredManifest:
    """Publish this manifest if nothing else was decided; what was written for it in vain is deleted."""
    outcome = decide(store, outcome_key, Outcome(manifest=manifest))
    if outcome.manifest is None or outcome.manifest.version != manifest.version:
        reference = ConceptReference(manifest.name, manifest.version)
        for name in manifest.files:
            store.delete(file_key(manifest.tenant, reference, name))
    stored = complete(store, outcome)
    forget_attempt(store, outcome_key, manifest.version)
    return stored
