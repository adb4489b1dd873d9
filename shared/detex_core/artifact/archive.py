"""Reading, listing and deleting published concepts."""

import base64
import binascii
import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from detex_core.artifact.layout import (
    MANIFEST_FILE,
    ConceptReference,
    check_reference,
    concept_prefix,
    file_key,
    manifest_reference,
    tenant_prefix,
)
from detex_core.artifact.manifest import CONCEPT_VERSION, FileRecord, Manifest
from detex_core.errors import DataLossError, NotFoundError, invalid_input
from detex_core.object_store import ObjectStore
from detex_core.prompt import CONCEPT_NAME

MAX_PAGE_SIZE = 1_000
DEFAULT_PAGE_SIZE = 50

_INTERRUPTED_AFTER = timedelta(hours=1)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredManifest:
    """A manifest as it lies in the store.

    Attributes:
        manifest: What it says.
        sha256: SHA-256 (hex) of its bytes.
        manifest_bytes: Its size.
    """

    manifest: Manifest
    sha256: str
    manifest_bytes: int

    @property
    def reference(self) -> ConceptReference:
        """Name and version."""
        return ConceptReference(self.manifest.name, self.manifest.version)

    @property
    def size_bytes(self) -> int:
        """Size of all files of the concept, the manifest among them."""
        return self.manifest_bytes + sum(record.size_bytes for record in self.manifest.files.values())


@dataclass(frozen=True)
class ConceptPage:
    """A page of concepts.

    Attributes:
        concepts: By name; of one name the newest version first.
        next_page_token: Token of the next page; empty on the last.
    """

    concepts: tuple[StoredManifest, ...]
    next_page_token: str


@dataclass(frozen=True)
class DeletedConcepts:
    """What a deletion has removed.

    Attributes:
        references: The versions that are gone, the newest first.
        deleted_keys: The objects that are gone, in the order of their deletion: manifests first.
    """

    references: tuple[ConceptReference, ...]
    deleted_keys: tuple[str, ...]


def stored_manifest(manifest: Manifest, data: bytes) -> StoredManifest:
    """A manifest with what its bytes say about themselves."""
    return StoredManifest(manifest, hashlib.sha256(data).hexdigest(), len(data))


class ConceptArchive:
    """The published concepts of an object store; safe to use from several threads.

    Every method raises what the store raises where it does not answer, and InvalidInputError for malformed names.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def check(self) -> None:
        """Raise what a read of the store would raise now, whatever the concept."""
        self._store.check()

    def resolve(self, tenant: str, name: str, version: str = "", *, field: str = "reference") -> StoredManifest:
        """The manifest of one version, or of the newest where none is named.

        Args:
            tenant: Owner.
            name: Name of the concept.
            version: Version as published; empty means the newest.
            field: What errors call the reference.

        Raises:
            NotFoundError: There is no such concept, or not in that version (reasons `CONCEPT_NOT_FOUND` and
                `CONCEPT_VERSION_NOT_FOUND`).
            DataLossError: The manifest is damaged.
        """
        check_reference(tenant, name, version, field)
        if version:
            try:
                return self._load(tenant, ConceptReference(name, version))
            except NotFoundError:
                raise self._not_found(tenant, name, version) from None
        for reference in self.versions(tenant, name):
            try:
                return self._load(tenant, reference)
            except NotFoundError:
                continue  # deleted since it was listed
        raise self._not_found(tenant, name, "")

    def read(self, stored: StoredManifest, file_name: str) -> bytes:
        """One file of a concept.

        Raises:
            DataLossError: The manifest names no such file, the file is gone, or its hash is not the manifest's.
            NotFoundError: The concept has been deleted since it was resolved.
        """
        record = self._record(stored, file_name)
        try:
            data = self._store.get(_key(stored, file_name), expected_sha256=record.sha256)
        except NotFoundError:
            raise self._missing_file(stored, file_name) from None
        return data

    def read_file(self, stored: StoredManifest, file_name: str, path: Path) -> None:
        """Read one file of a concept into `path`, which appears only when complete and verified; raises as `read`."""
        record = self._record(stored, file_name)
        try:
            self._store.get_file(_key(stored, file_name), path, expected_sha256=record.sha256)
        except NotFoundError:
            raise self._missing_file(stored, file_name) from None

    def list(self, tenant: str, *, page_size: int = DEFAULT_PAGE_SIZE, page_token: str = "") -> ConceptPage:
        """A page of a tenant's concepts.

        Concepts with a damaged manifest are left out, and reported in the log; `resolve` raises for them.

        Args:
            tenant: Owner.
            page_size: Concepts per page, 1 to 1,000; 0 means 50.
            page_token: `next_page_token` of the page before; empty for the first.

        Raises:
            InvalidInputError: Page size or page token is none.
        """
        if not 0 <= page_size <= MAX_PAGE_SIZE:
            raise invalid_input("page_size", page_size, f"1 to {MAX_PAGE_SIZE:,}, or 0 for {DEFAULT_PAGE_SIZE}")
        after = _decoded(page_token)
        keys = self._store.list(tenant_prefix(tenant))
        references = _newest_first(reference for each in keys if (reference := manifest_reference(each.key)))
        if after is not None:
            references = [
                each
                for each in references
                if each.name > after.name or (each.name == after.name and each.version < after.version)
            ]
        concepts: list[StoredManifest] = []
        for position, reference in enumerate(references):
            if len(concepts) == (page_size or DEFAULT_PAGE_SIZE):
                return ConceptPage(tuple(concepts), _encoded(references[position - 1]))
            try:
                concepts.append(self._load(tenant, reference))
            except NotFoundError:
                continue  # deleted since it was listed
            except DataLossError as error:
                logger.error("concept left out of a list: %s", error.message)
        return ConceptPage(tuple(concepts), "")

    def delete(self, tenant: str, name: str, version: str = "", *, field: str = "reference") -> DeletedConcepts:
        """Delete one version of a concept, or all of them where none is named.

        Manifests go first, so that no reader sees half a concept. Without a version, files that interrupted
        publications of the concept have left an hour or more ago go too.

        Raises:
            NotFoundError: There is no such concept, or not in that version.
        """
        check_reference(tenant, name, version, field)
        listed = tuple(self._store.list(concept_prefix(tenant, name)))
        published = {reference for each in listed if (reference := manifest_reference(each.key))}
        doomed = _newest_first(each for each in published if version in ("", each.version))
        deleted = [
            (reference, key)
            for reference in doomed
            if self._store.delete(key := file_key(tenant, reference, MANIFEST_FILE))
        ]
        deleted_keys = [key for _, key in deleted]
        complete = {file_key(tenant, reference, "") for reference in doomed}
        alive = {file_key(tenant, reference, "") for reference in published} - complete
        abandoned_before = datetime.now(UTC) - _INTERRUPTED_AFTER
        for each in listed:
            folder = each.key[: each.key.rindex("/") + 1]
            abandoned = not version and folder not in alive and each.modified < abandoned_before
            if (folder in complete or abandoned) and self._store.delete(each.key):
                deleted_keys.append(each.key)
        for reference in doomed:
            # An interrupted publication may have been completed while its files were still there.
            self._store.delete(file_key(tenant, reference, MANIFEST_FILE))
        if not deleted:
            raise self._not_found(tenant, name, version)
        return DeletedConcepts(tuple(reference for reference, _ in deleted), tuple(deleted_keys))

    def _load(self, tenant: str, reference: ConceptReference) -> StoredManifest:
        key = file_key(tenant, reference, MANIFEST_FILE)
        data = self._store.get(key)
        try:
            manifest = Manifest.model_validate_json(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "its form"
            raise DataLossError(f"{_called(tenant, reference)}: its manifest is damaged at {where}.") from error
        if (manifest.tenant, manifest.name, manifest.version) != (tenant, reference.name, reference.version):
            raise DataLossError(f"{_called(tenant, reference)}: its manifest is the manifest of another concept.")
        return stored_manifest(manifest, data)

    def versions(self, tenant: str, name: str) -> Sequence[ConceptReference]:
        """Published versions of a concept, the newest first; none where there is no such concept."""
        keys = self._store.list(concept_prefix(tenant, name))
        return _newest_first(reference for each in keys if (reference := manifest_reference(each.key)))

    def _not_found(self, tenant: str, name: str, version: str) -> NotFoundError:
        newest = next(iter(self.versions(tenant, name)), None)
        if newest is None or not version:
            return NotFoundError(f"Tenant {tenant!r} has no concept {name!r}.", reason="CONCEPT_NOT_FOUND")
        return NotFoundError(
            f"Concept {name!r} of tenant {tenant!r} has no version {version!r}; its newest is {newest.version!r}.",
            reason="CONCEPT_VERSION_NOT_FOUND",
        )

    def _record(self, stored: StoredManifest, file_name: str) -> FileRecord:
        record = stored.manifest.files.get(file_name)
        if record is None:
            called = _called(stored.manifest.tenant, stored.reference)
            raise DataLossError(f"{called}: its manifest names no {file_name}.")
        return record

    def _missing_file(self, stored: StoredManifest, file_name: str) -> DataLossError | NotFoundError:
        tenant, reference = stored.manifest.tenant, stored.reference
        try:
            self._store.stat(file_key(tenant, reference, MANIFEST_FILE))
        except NotFoundError:
            return self._not_found(tenant, reference.name, reference.version)
        return DataLossError(f"{_called(tenant, reference)}: its file {file_name} is missing.")


def _key(stored: StoredManifest, file_name: str) -> str:
    return file_key(stored.manifest.tenant, stored.reference, file_name)


def _called(tenant: str, reference: ConceptReference) -> str:
    return f"Concept {reference.name!r} of tenant {tenant!r}, version {reference.version!r}"


def _newest_first(references: Iterable[ConceptReference]) -> Sequence[ConceptReference]:
    """By name; of one name the newest version first."""
    by_age = sorted(references, key=lambda reference: reference.version, reverse=True)
    return sorted(by_age, key=lambda reference: reference.name)


def _encoded(reference: ConceptReference) -> str:
    return base64.urlsafe_b64encode(f"{reference.name}/{reference.version}".encode()).decode()


def _decoded(page_token: str) -> ConceptReference | None:
    if not page_token:
        return None
    try:
        name, version = base64.b64decode(page_token, altchars=b"-_", validate=True).decode().split("/")
    except (binascii.Error, ValueError):
        raise invalid_input("page_token", repr(page_token), "the next_page_token of the previous page") from None
    if not CONCEPT_NAME.fullmatch(name) or not CONCEPT_VERSION.fullmatch(version):
        raise invalid_input("page_token", repr(page_token), "the next_page_token of the previous page")
    return ConceptReference(name, version)
