"""Deletes concepts with all files of the jobs that made them; what cannot be deleted now is owed."""

from detex_core.artifact import ConceptArchive, ConceptReference, DeletedConcepts
from detex_core.artifact.layout import MANIFEST_FILE, check_reference, concept_prefix, file_key
from detex_core.errors import NotFoundError
from detex_core.object_store import ObjectStore
from detex_trainer.domain.job_files import job_prefix
from detex_trainer.jobs import DeletionLedger, JobRepository


def delete_listed(ledger: DeletionLedger, store: ObjectStore, prefix: str) -> list[str]:
    """Delete all objects of a prefix that is listed for deletion, a manifest first, and strike it out.

    Returns:
        The keys of what is gone.
    """
    keys = sorted((each.key for each in store.list(prefix)), key=lambda key: (not key.endswith(MANIFEST_FILE), key))
    deleted = [key for key in keys if store.delete(key)]
    ledger.strike(prefix)
    return deleted


class ConceptDeletion:
    """Deletes concepts; safe to use from several threads.

    All that is to go is listed in the database first, so that a deletion that was begun is ended whatever comes in
    between: by the trainer's cleanup, or by whoever asks again.
    """

    def __init__(
        self, concepts: ConceptArchive, jobs: JobRepository, store: ObjectStore, ledger: DeletionLedger
    ) -> None:
        self._concepts = concepts
        self._jobs = jobs
        self._store = store
        self._ledger = ledger

    def delete(self, tenant: str, name: str, version: str = "") -> DeletedConcepts:
        """Delete one version of a concept, or all of them where none is named.

        Returns:
            All that is gone, by key.

        Raises:
            InvalidInputError: A name is malformed.
            NotFoundError: There is no such concept, or not in that version, and none is being deleted.
            DetexError: As the object store; the rest is deleted when that is possible.
        """
        check_reference(tenant, name, version, "reference")
        prefix = concept_prefix(tenant, name) if not version else file_key(tenant, ConceptReference(name, version), "")
        owed = self._ledger.due(prefix=prefix)
        versions = [each.version for each in self._concepts.versions(tenant, name) if version in ("", each.version)]
        self._ledger.add(tenant, self._prefixes(tenant, name, versions))
        try:
            deleted = self._concepts.delete(tenant, name, version)
        except NotFoundError:
            if not owed:
                raise
            deleted = DeletedConcepts((), ())
        begun = [each.rstrip("/").rpartition("/")[2] for each in owed]
        keys = list(deleted.deleted_keys)
        for each in self._prefixes(tenant, name, sorted({*versions, *begun})):
            keys += delete_listed(self._ledger, self._store, each)
        references = dict.fromkeys((*deleted.references, *(ConceptReference(name, each) for each in begun)))
        return DeletedConcepts(tuple(references), tuple(keys))

    def _prefixes(self, tenant: str, name: str, versions: list[str]) -> list[str]:
        """Where the files of a concept's jobs lie, and then its versions: these are listed until all is gone."""
        jobs = [job_prefix(tenant, job_id) for job_id in self._jobs.published_by(tenant, name, versions)]
        return jobs + [file_key(tenant, ConceptReference(name, version), "") for version in versions]
