"""One piece of work publishes once, wherever it is interrupted and however many do it."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from detex_core.artifact import (
    Closing,
    ConceptArchive,
    PublicationClosedError,
    StoredManifest,
    close_publication,
    delete_abandoned_attempts,
    find_publication,
    publish_concept,
)
from detex_core.errors import DataLossError
from detex_core.object_store import FolderStore, ObjectInfo
from tests.core.concepts import FILES, draft

OUTCOME = "jobs/acme/job-0123456789abcdef/outcome.json"
CLOSING = Closing(reason="CANCELLED", message="Its caller asked it to stop.")
WRITES = 5  # the note of the attempt, two files, the outcome, the manifest
BEFORE_OUTCOME, BEFORE_MANIFEST = 3, 4


class Died(BaseException):
    """The process is no more."""


class MortalStore(FolderStore):
    """A store whose process dies at one of its writes."""

    def __init__(self, folder: Path, writes_before_death: int, *, before_writing: bool = True) -> None:
        super().__init__(folder)
        self._left = writes_before_death
        self._before_writing = before_writing

    def put(self, key: str, data: bytes, *, if_absent: bool = False, content_type: str = "") -> ObjectInfo:
        if self._left == 0 and self._before_writing:
            raise Died
        written = super().put(key, data, if_absent=if_absent, content_type=content_type)
        if self._left == 0:
            raise Died
        self._left -= 1
        return written


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "objects"


def publish(store: FolderStore, weights: bytes = b"weights") -> StoredManifest:
    return publish_concept(store, draft(), FILES | {"concept.safetensors": weights}, outcome_key=OUTCOME)


def visible(store: FolderStore) -> list[StoredManifest]:
    """The concepts that readers see, all their files read."""
    archive = ConceptArchive(store)
    concepts = list(archive.list("acme").concepts)
    for stored in concepts:
        for name in stored.manifest.files:
            archive.read(stored, name)
    return concepts


@pytest.mark.parametrize("before_writing", [True, False])
@pytest.mark.parametrize("writes", range(WRITES))
def test_a_second_attempt_publishes_or_finds_what_was_published(
    folder: Path, writes: int, before_writing: bool
) -> None:
    with pytest.raises(Died):
        publish(MortalStore(folder, writes, before_writing=before_writing), b"first")
    store = FolderStore(folder)
    decided = writes > BEFORE_OUTCOME or (writes == BEFORE_OUTCOME and not before_writing)
    assert len(visible(store)) == (1 if writes == BEFORE_MANIFEST and not before_writing else 0)
    found = find_publication(store, OUTCOME)
    assert (found is not None) == decided
    second = publish(store, b"second")
    assert visible(store) == [second]
    expected = b"first" if decided else b"second"
    assert ConceptArchive(store).read(second, "concept.safetensors") == expected
    assert find_publication(store, OUTCOME) == second
    if decided:
        assert found == second


@pytest.mark.parametrize("writes", range(WRITES))
def test_an_end_without_a_concept_excludes_a_publication(folder: Path, writes: int) -> None:
    with pytest.raises(Died):
        publish(MortalStore(folder, writes))
    store = FolderStore(folder)
    if writes == BEFORE_MANIFEST:
        published = close_publication(store, OUTCOME, CLOSING)
        assert visible(store) == [published]
        return
    with pytest.raises(PublicationClosedError) as raised:
        close_publication(store, OUTCOME, CLOSING)
    assert raised.value.closing == CLOSING
    with pytest.raises(PublicationClosedError, match="asked it to stop"):
        publish(store, b"too late")
    with pytest.raises(PublicationClosedError):
        find_publication(store, OUTCOME)
    assert visible(store) == []


@pytest.mark.parametrize("ends", ["published", "closed"])
@pytest.mark.parametrize("writes", range(WRITES))
def test_what_a_killed_publisher_has_left_goes_when_the_work_has_ended(folder: Path, writes: int, ends: str) -> None:
    with pytest.raises(Died):
        publish(MortalStore(folder, writes), b"first")
    store = FolderStore(folder)
    before = [each.key for each in store.list()]
    if writes <= BEFORE_OUTCOME:
        assert delete_abandoned_attempts(store, OUTCOME) == []  # it may still be published by whoever was that slow
        assert [each.key for each in store.list()] == before
    try:
        published = {publish(store, b"second").manifest.version} if ends == "published" else set()
        close_publication(store, OUTCOME, CLOSING)
    except PublicationClosedError:
        published = set()
    published |= {stored.manifest.version for stored in visible(store)}
    delete_abandoned_attempts(store, OUTCOME)
    left = [each.key for each in store.list("concepts/")]
    assert {key.split("/")[3] for key in left} == published
    assert [each.key for each in store.list("jobs/")] == [OUTCOME]
    assert len(visible(store)) == len(published)
    assert delete_abandoned_attempts(store, OUTCOME) == []


def test_of_many_at_once_one_decides(folder: Path) -> None:
    outcomes: list[str] = []
    barrier = threading.Barrier(6)

    def run(work: Callable[[], StoredManifest]) -> None:
        barrier.wait()
        try:
            outcomes.append(work().manifest.version)
        except PublicationClosedError as closed:
            outcomes.append(closed.closing.reason)

    works = [lambda number=number: publish(FolderStore(folder), b"%d" % number) for number in range(4)]
    works += [lambda: close_publication(FolderStore(folder), OUTCOME, CLOSING)] * 2
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 6
    assert len(set(outcomes)) == 1, "all agree"
    seen = [stored.manifest.version for stored in visible(FolderStore(folder))]
    assert seen == ([] if outcomes[0] == "CANCELLED" else outcomes[:1])


def test_what_was_deleted_stays_deleted(folder: Path) -> None:
    store = FolderStore(folder)
    published = publish(store)
    ConceptArchive(store).delete("acme", "my-mug")
    assert find_publication(store, OUTCOME) == published
    assert publish(store, b"again") == published
    assert visible(store) == []


def test_each_piece_of_work_publishes_for_itself(folder: Path) -> None:
    store = FolderStore(folder)
    first = publish(store)
    second = publish_concept(store, draft(), FILES, outcome_key=OUTCOME.replace("0123", "4567"))
    assert first.manifest.version != second.manifest.version
    assert len(visible(store)) == 2


def test_a_damaged_outcome_is_said(folder: Path) -> None:
    store = FolderStore(folder)
    store.put(OUTCOME, b'{"schema_version": 1}')
    with pytest.raises(DataLossError, match="damaged"):
        publish(store)
