"""Notes of publications that were begun, so that what one of them has left when it was killed can be deleted.

The files of a version are written before it is decided whether they are published. A worker that is killed in between
leaves files that no manifest names, under a version that nobody else knows. So where they lie is written down first,
beside the outcome: `<outcome key>.<version>`.
"""

from contextlib import suppress

from detex_core.artifact.layout import ConceptReference, file_key
from detex_core.artifact.publication import published_version
from detex_core.errors import DetexError, NotFoundError
from detex_core.object_store import ObjectStore


def attempt_key(outcome_key: str, version: str) -> str:
    """Key of the note of a publication that was begun."""
    return f"{outcome_key}.{version}"


def note_attempt(store: ObjectStore, outcome_key: str, tenant: str, reference: ConceptReference) -> None:
    """Note that files of a version are about to be written."""
    store.put(attempt_key(outcome_key, reference.version), file_key(tenant, reference, "").encode())


def forget_attempt(store: ObjectStore, outcome_key: str, version: str) -> None:
    """Delete the note of a publication that has left nothing behind; goes with the others where that fails."""
    with suppress(DetexError):
        store.delete(attempt_key(outcome_key, version))


def delete_abandoned_attempts(store: ObjectStore, outcome_key: str) -> list[str]:
    """Delete what publications that came to nothing have left, once the outcome is decided.

    Args:
        store: Where concepts and the outcome lie.
        outcome_key: Key of the outcome.

    Returns:
        The keys of the files that are gone; none while the outcome is open, for one of them may be published yet.

    Raises:
        DataLossError: The outcome is damaged.
        DetexError: As ObjectStore.
    """
    notes = [each.key for each in store.list(f"{outcome_key}.")]
    if not notes:
        return []
    try:
        published = published_version(store, outcome_key)
    except NotFoundError:
        return []
    deleted: list[str] = []
    for note in notes:
        if note != attempt_key(outcome_key, published):
            prefix = store.get(note).decode()
            deleted += [each.key for each in list(store.list(prefix)) if store.delete(each.key)]
        store.delete(note)
    return deleted
