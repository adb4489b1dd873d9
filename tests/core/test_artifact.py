"""Publishing, resolving and reading concepts, over both kinds of object store."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from pydantic import ValidationError

from detex_core.artifact import ConceptArchive, publish_concept
from detex_core.errors import DataLossError, InvalidInputError, NotFoundError
from detex_core.object_store import FolderStore, ObjectInfo, ObjectStore
from tests.core.concepts import FILES, draft
from tests.core.conftest import PutFromOutside, Tamper

NOON = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


def flipped(data: bytes) -> bytes:
    return data[:5] + bytes([data[5] ^ 0x10]) + data[6:]


def test_a_published_concept_is_resolved_and_read(store: ObjectStore, tmp_path: Path) -> None:
    published = publish_concept(store, draft(), FILES, create_time=NOON)
    archive = ConceptArchive(store)
    assert published.manifest.version.startswith("20260131T120000Z-")
    assert published.manifest.create_time == NOON
    assert archive.resolve("acme", "my-mug") == published
    assert archive.resolve("acme", "my-mug", published.manifest.version) == published
    assert {name: archive.read(published, name) for name in FILES} == FILES
    archive.read_file(published, "report.json", tmp_path / "report.json")
    assert (tmp_path / "report.json").read_bytes() == FILES["report.json"]
    stored = store.list("concepts/acme/my-mug/")
    assert published.size_bytes == sum(each.size_bytes for each in stored)


def test_files_may_be_given_as_paths(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(FILES["concept.safetensors"])
    files = {"concept.safetensors": tmp_path / "weights", "report.json": FILES["report.json"]}
    from_paths = publish_concept(store, draft(), files, create_time=NOON)
    from_bytes = publish_concept(store, draft(tenant="other"), FILES, create_time=NOON)
    assert from_paths.manifest.files == from_bytes.manifest.files
    assert from_paths.reference == from_bytes.reference


def test_files_may_say_which_version_they_belong_to(store: ObjectStore) -> None:
    def label(version: str) -> bytes:
        return b"PNG " + version.encode()

    archive = ConceptArchive(store)
    first, second = (
        publish_concept(store, draft(), FILES, create_time=NOON, labelled={"report.png": label}) for _ in range(2)
    )
    assert first.manifest.version != second.manifest.version
    for published in (first, second):
        assert archive.read(published, "report.png") == label(published.manifest.version)
        assert set(published.manifest.files) == {*FILES, "report.png"}


def test_the_newest_version_is_the_default(store: ObjectStore) -> None:
    archive = ConceptArchive(store)
    first = publish_concept(store, draft(), FILES, create_time=NOON)
    second = publish_concept(store, draft(), {"concept.safetensors": b"better"}, create_time=NOON + timedelta(days=1))
    assert archive.resolve("acme", "my-mug") == second
    assert archive.resolve("acme", "my-mug", first.manifest.version) == first
    archive.delete("acme", "my-mug", second.manifest.version)
    assert archive.resolve("acme", "my-mug") == first


def test_later_publications_are_newer_even_within_a_second_or_with_a_clock_behind(store: ObjectStore) -> None:
    times = [NOON, NOON, NOON - timedelta(hours=1), NOON.astimezone(timezone(timedelta(hours=9)))]
    published = [
        publish_concept(store, draft(), {"concept.safetensors": b"%d" % number}, create_time=time).reference
        for number, time in enumerate(times)
    ]
    assert published == sorted(published)
    assert len(set(published)) == len(times)
    assert ConceptArchive(store).resolve("acme", "my-mug").reference == published[-1]


def test_racing_publications_all_arrive(store: ObjectStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        contents = [b"first", b"second", b"third", b"third"]
        published = list(
            pool.map(lambda data: publish_concept(store, draft(), {"concept.safetensors": data}).reference, contents)
        )
    assert len(set(published)) == 4
    archive = ConceptArchive(store)
    for data, reference in zip(contents, published, strict=True):
        stored = archive.resolve("acme", "my-mug", reference.version)
        assert archive.read(stored, "concept.safetensors") == data


class InterruptedWriteError(Exception):
    pass


class FailingStore:
    """A folder store whose n-th write fails."""

    def __init__(self, store: FolderStore, fails_at: int) -> None:
        self._store = store
        self._writes_left = fails_at

    def put(self, key: str, data: bytes, *, if_absent: bool = False, content_type: str = "") -> ObjectInfo:
        if not self._writes_left:
            raise InterruptedWriteError
        self._writes_left -= 1
        return self._store.put(key, data, if_absent=if_absent, content_type=content_type)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_an_interrupted_publication_shows_nothing_and_may_be_repeated(folder_store: FolderStore, fails_at: int) -> None:
    archive = ConceptArchive(folder_store)
    failing: ObjectStore = FailingStore(folder_store, fails_at)  # type: ignore[assignment]
    with pytest.raises(InterruptedWriteError):
        publish_concept(failing, draft(), FILES, create_time=NOON)
    assert archive.list("acme").concepts == ()
    with pytest.raises(NotFoundError):
        archive.resolve("acme", "my-mug")
    published = publish_concept(folder_store, draft(), FILES, create_time=NOON)
    assert published.manifest.create_time == NOON
    assert archive.resolve("acme", "my-mug") == published


@pytest.mark.parametrize(
    ("tenant", "name", "version", "told"),
    [
        ("acme", "other", "", "Tenant 'acme' has no concept 'other'"),
        ("nobody", "my-mug", "", "Tenant 'nobody' has no concept 'my-mug'"),
        ("acme", "my", "", "Tenant 'acme' has no concept 'my'"),
        ("acme", "other", "20260131T120000Z-00000000", "Tenant 'acme' has no concept 'other'"),
        (
            "acme",
            "my-mug",
            "20200101T000000Z-00000000",
            "'my-mug' of tenant 'acme' has no version '2020.*newest is '2026",
        ),
    ],
)
def test_what_is_not_there_is_told_by_name(store: ObjectStore, tenant: str, name: str, version: str, told: str) -> None:
    archive = ConceptArchive(store)
    publish_concept(store, draft(), FILES, create_time=NOON)
    with pytest.raises(NotFoundError, match=told):
        archive.resolve(tenant, name, version)
    with pytest.raises(NotFoundError, match=told):
        archive.delete(tenant, name, version)
    assert len(archive.list("acme").concepts) == 1


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("Acme", "my-mug", ""), "tenant"),
        (("acme", "", ""), "reference.name"),
        (("acme", "../other", ""), "reference.name"),
        (("acme", "My Mug", ""), "reference.name"),
        (("acme", "my-mug", "newest"), "reference.version"),
        (("acme", "my-mug", "20260131T120000Z-0000000\n"), "reference.version"),
    ],
)
def test_malformed_references_are_invalid_input(
    folder_store: FolderStore, arguments: tuple[str, str, str], field: str
) -> None:
    for method in (ConceptArchive(folder_store).resolve, ConceptArchive(folder_store).delete):
        with pytest.raises(InvalidInputError) as raised:
            method(*arguments)
        assert [violation.field for violation in raised.value.violations] == [field]


def test_a_flipped_bit_in_a_file_is_data_loss(store: ObjectStore, put_from_outside: PutFromOutside) -> None:
    stored = publish_concept(store, draft(), FILES)
    key = f"concepts/acme/my-mug/{stored.manifest.version}/concept.safetensors"
    damaged = flipped(FILES["concept.safetensors"])
    put_from_outside(key, damaged)  # where the store itself knows no hash, the manifest's still counts
    with pytest.raises(DataLossError, match=r"concept\.safetensors"):
        ConceptArchive(store).read(stored, "concept.safetensors")
    assert ConceptArchive(store).read(stored, "report.json") == FILES["report.json"]


def test_a_flipped_bit_in_the_manifest_is_data_loss(store: ObjectStore, tamper: Tamper) -> None:
    stored = publish_concept(store, draft(), FILES)
    key = f"concepts/acme/my-mug/{stored.manifest.version}/manifest.json"
    tamper(key, flipped(store.get(key)))
    with pytest.raises(DataLossError, match=r"manifest\.json"):
        ConceptArchive(store).resolve("acme", "my-mug")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "its form"),
        (b"not JSON", "its form"),
        (b"\xff\xfe", "its form"),
        (b"[]", "its form"),
        (b'{"schema_version": 2}', "schema_version|tenant|name"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_data_loss(store: ObjectStore, content: bytes, told: str) -> None:
    store.put("concepts/acme/my-mug/20260131T120000Z-00000000/manifest.json", content)
    with pytest.raises(DataLossError, match=f"'my-mug' of tenant 'acme'.*({told})"):
        ConceptArchive(store).resolve("acme", "my-mug")


def test_the_manifest_of_another_concept_is_data_loss(store: ObjectStore) -> None:
    stored = publish_concept(store, draft(), FILES)
    version = stored.manifest.version
    store.put(
        f"concepts/acme/other/{version}/manifest.json", store.get(f"concepts/acme/my-mug/{version}/manifest.json")
    )
    with pytest.raises(DataLossError, match="another concept"):
        ConceptArchive(store).resolve("acme", "other")


def test_a_missing_file_is_data_loss_but_a_deleted_concept_is_not_found(store: ObjectStore) -> None:
    archive = ConceptArchive(store)
    stored = publish_concept(store, draft(), FILES)
    store.delete(f"concepts/acme/my-mug/{stored.manifest.version}/report.json")
    with pytest.raises(DataLossError, match=r"report\.json is missing"):
        archive.read(stored, "report.json")
    with pytest.raises(DataLossError, match=r"names no report\.png"):
        archive.read(stored, "report.png")
    archive.delete("acme", "my-mug")
    with pytest.raises(NotFoundError, match="my-mug"):
        archive.read(stored, "concept.safetensors")


def test_drafts_and_files_are_checked_before_anything_is_written(folder_store: FolderStore) -> None:
    with pytest.raises(ValueError, match=r"concept\.safetensors"):
        publish_concept(folder_store, draft(), {"report.json": b""})
    with pytest.raises(ValidationError, match="pickle"):
        publish_concept(folder_store, draft(), {**FILES, "weights.pickle": b""})
    assert list(folder_store.list()) == []


def test_manifests_are_readable_by_others(folder_store: FolderStore) -> None:
    stored = publish_concept(folder_store, draft(), FILES, create_time=NOON)
    data = folder_store.get(f"concepts/acme/my-mug/{stored.manifest.version}/manifest.json")
    content = json.loads(data)
    assert content["schema_version"] == 1
    assert content["create_time"] == "2026-01-31T12:00:00Z"
    assert content["attributes"] == [{"name": "pose", "count": 4}, {"name": "background", "count": 4}]
    assert content["files"]["report.json"]["size_bytes"] == len(FILES["report.json"])
