"""Listing and deleting concepts, over both kinds of object store."""

import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detex_core.artifact import ConceptArchive, ConceptReference, publish_concept
from detex_core.errors import InvalidInputError, NotFoundError
from detex_core.object_store import FolderStore, ObjectStore
from tests.core.concepts import FILES, draft

NOON = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


def publish_many(store: ObjectStore) -> list[ConceptReference]:
    """Five concepts with one to three versions, in the order of lists."""
    references = []
    for name, versions in {"a": 2, "a-b": 1, "b": 3, "b0": 1, "c": 2}.items():
        published = [
            publish_concept(
                store, draft(name=name), {"concept.safetensors": b"%d" % number}, create_time=NOON
            ).reference
            for number in range(versions)
        ]
        references.extend(reversed(published))
    publish_concept(store, draft(tenant="acme2", name="a"), FILES)
    store.put("concepts/acme/unfinished/20260131T120000Z-00000000/concept.safetensors", b"no manifest yet")
    return references


@pytest.mark.parametrize("page_size", [1, 2, 3, 9, 10, 0])
def test_pages_hold_every_concept_once_in_order(folder_store: FolderStore, page_size: int) -> None:
    expected = publish_many(folder_store)
    archive = ConceptArchive(folder_store)
    found: list[ConceptReference] = []
    token = ""
    while True:
        page = archive.list("acme", page_size=page_size, page_token=token)
        assert len(page.concepts) <= (page_size or 50)
        found.extend(stored.reference for stored in page.concepts)
        token = page.next_page_token
        if not token:
            break
        assert page.concepts
    assert found == expected


def test_pages_over_s3_and_of_tenants_without_concepts(store: ObjectStore) -> None:
    expected = publish_many(store)
    archive = ConceptArchive(store)
    first = archive.list("acme", page_size=5)
    second = archive.list("acme", page_size=5, page_token=first.next_page_token)
    assert [stored.reference for stored in (*first.concepts, *second.concepts)] == expected
    assert second.next_page_token == ""
    assert archive.list("nobody").concepts == ()


def test_pages_go_on_after_a_concept_that_has_been_deleted(folder_store: FolderStore) -> None:
    expected = publish_many(folder_store)
    archive = ConceptArchive(folder_store)
    first = archive.list("acme", page_size=4)
    archive.delete("acme", first.concepts[-1].reference.name)
    second = archive.list("acme", page_size=100, page_token=first.next_page_token)
    gone = first.concepts[-1].reference.name
    assert [stored.reference for stored in second.concepts] == [each for each in expected[4:] if each.name != gone]


def test_a_damaged_concept_does_not_hide_the_others(
    folder_store: FolderStore, caplog: pytest.LogCaptureFixture
) -> None:
    expected = publish_many(folder_store)
    damaged = expected[3]
    folder_store.put(f"concepts/acme/{damaged.name}/{damaged.version}/manifest.json", b"{")
    with caplog.at_level(logging.ERROR):
        page = ConceptArchive(folder_store).list("acme")
    assert [stored.reference for stored in page.concepts] == [each for each in expected if each != damaged]
    assert damaged.version in caplog.text
    ConceptArchive(folder_store).delete("acme", damaged.name, damaged.version)


@given(token=st.text(max_size=40))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_page_token_is_a_token_or_invalid_input(folder_store: FolderStore, token: str) -> None:
    try:
        ConceptArchive(folder_store).list("acme", page_token=token)
    except InvalidInputError as error:
        assert error.violations[0].field == "page_token"  # noqa: PT017


@pytest.mark.parametrize("page_size", [-1, 1_001])
def test_page_sizes_out_of_range(folder_store: FolderStore, page_size: int) -> None:
    with pytest.raises(InvalidInputError, match="1,000"):
        ConceptArchive(folder_store).list("acme", page_size=page_size)


def test_deleting_one_version_leaves_the_others(store: ObjectStore) -> None:
    archive = ConceptArchive(store)
    old, new = (publish_concept(store, draft(), FILES, create_time=NOON + timedelta(days=day)) for day in range(2))
    deleted = archive.delete("acme", "my-mug", old.manifest.version)
    base = f"concepts/acme/my-mug/{old.manifest.version}"
    assert deleted.references == (old.reference,)
    assert deleted.deleted_keys[0] == f"{base}/manifest.json"
    assert set(deleted.deleted_keys) == {f"{base}/{name}" for name in ("manifest.json", *FILES)}
    assert archive.resolve("acme", "my-mug") == new
    assert archive.read(new, "report.json") == FILES["report.json"]
    assert len(list(store.list("concepts/"))) == 3


def test_deleting_all_versions_leaves_other_concepts(store: ObjectStore) -> None:
    archive = ConceptArchive(store)
    versions = [publish_concept(store, draft(), FILES, create_time=NOON).reference for _ in range(3)]
    kept = publish_concept(store, draft(name="my-mug-2"), FILES)
    deleted = archive.delete("acme", "my-mug")
    assert deleted.references == tuple(reversed(versions))
    manifests = [key.endswith("/manifest.json") for key in deleted.deleted_keys]
    assert manifests == [True] * 3 + [False] * 6
    assert [stored.reference for stored in archive.list("acme").concepts] == [kept.reference]
    with pytest.raises(NotFoundError):
        archive.delete("acme", "my-mug")


def test_a_publication_under_way_survives_the_deletion_of_older_versions(
    folder_store: FolderStore, tmp_path: Path
) -> None:
    publish_concept(folder_store, draft(), FILES, create_time=NOON)
    under_way = "concepts/acme/my-mug/20270101T000000Z-00000000/concept.safetensors"
    abandoned = "concepts/acme/my-mug/20250101T000000Z-00000000/concept.safetensors"
    folder_store.put(under_way, b"no manifest yet")
    folder_store.put(abandoned, b"never a manifest")
    two_hours_ago = (datetime.now(UTC) - timedelta(hours=2)).timestamp()
    os.utime(tmp_path / "store" / "objects" / abandoned, (two_hours_ago, two_hours_ago))
    deleted = ConceptArchive(folder_store).delete("acme", "my-mug")
    assert abandoned in deleted.deleted_keys
    assert [each.key for each in folder_store.list()] == [under_way]
