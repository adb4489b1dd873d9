"""A place where no store is now is never taken for an empty store."""

import io
import secrets
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detex_core.errors import NotFoundError, UnavailableError
from detex_core.object_store import OTHER_STORE, STORE_ABSENT, FolderStore, IdentifiedStore, open_object_store
from detex_core.settings import ObjectStoreSettings
from tests.core.conftest import BUCKET, minio_store, plain_client
from tests.servers.seaweedfs import SeaweedServer


class Place:
    """Where a store lies, and what may happen to it from outside."""

    def __init__(self, options: dict[str, object], unmount: Callable[[], None], mount: Callable[[], None]) -> None:
        self.options = options
        self.unmount = unmount
        self.mount = mount

    def open(self, identity: str = "", **options: object) -> IdentifiedStore:
        return open_object_store(ObjectStoreSettings(**self.options, identity=identity), **options)  # type: ignore[arg-type]


@pytest.fixture
def folder_place(tmp_path: Path) -> Place:
    store, away = tmp_path / "store", tmp_path / "away"
    return Place({"url": f"folder://{store}"}, lambda: store.rename(away), lambda: _put_back(away, store))


def _put_back(away: Path, store: Path) -> None:
    shutil.rmtree(store, ignore_errors=True)
    away.rename(store)


@pytest.fixture
def s3_place(seaweedfs: SeaweedServer, s3_prefix: str) -> Place:
    """A prefix of a bucket whose objects are taken away and put back."""
    client, kept = plain_client(seaweedfs), {}

    def unmount() -> None:
        for each in list(client.list_objects(BUCKET, f"{s3_prefix}/", recursive=True)):
            response = client.get_object(BUCKET, str(each.object_name))
            kept[str(each.object_name)] = response.data
            response.release_conn()
            client.remove_object(BUCKET, str(each.object_name))

    def mount() -> None:
        for name, data in kept.items():
            client.put_object(BUCKET, name, io.BytesIO(data), len(data))

    keys = {"access_key": seaweedfs.access_key, "secret_key": seaweedfs.secret_key}
    return Place({"url": seaweedfs.url(BUCKET, s3_prefix), **keys}, unmount, mount)


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest) -> Place:
    found: Place = request.getfixturevalue(f"{request.param}_place")
    return found


def questions(store: IdentifiedStore, tmp_path: Path) -> dict[str, Callable[[], object]]:
    """Calls that a store without objects would answer."""
    (tmp_path / "file").write_bytes(b"data")
    return {
        "get": lambda: store.get("a/key"),
        "get_file": lambda: store.get_file("a/key", tmp_path / "copy"),
        "stat": lambda: store.stat("a/key"),
        "list": lambda: list(store.list("a/")),
        "delete": lambda: store.delete("a/key"),
        "put": lambda: store.put("a/other", b"data"),
        "put if absent": lambda: store.put("a/other", b"data", if_absent=True),
        "put_file": lambda: store.put_file("a/other", tmp_path / "file"),
        "check": store.check,
        "identity": store.identity,
    }


def refused(question: Callable[[], object]) -> str:
    with pytest.raises(UnavailableError) as raised:
        question()
    assert raised.value.retry_delay_seconds
    return raised.value.reason


def test_nothing_is_believed_while_the_store_is_away(place: Place, tmp_path: Path) -> None:
    store = place.open()
    store.put("a/key", b"data")
    late = place.open(store.identity(), create=False)  # a worker that begins while it is away
    place.unmount()
    late_answers = {name: refused(question) for name, question in questions(late, tmp_path).items()}
    assert set(late_answers.values()) == {STORE_ABSENT}
    if "folder" in str(place.options["url"]):  # writes to an S3 server are trusted for a second
        assert {refused(question) for question in questions(store, tmp_path).values()} == {STORE_ABSENT}
        assert not (tmp_path / "store").exists()
    for name in ("get", "stat", "list", "check"):
        assert refused(questions(store, tmp_path)[name]) == STORE_ABSENT
    place.mount()
    assert late.get("a/key") == store.get("a/key") == b"data"
    with pytest.raises(NotFoundError):
        store.get("a/other")
    assert store.delete("a/key")
    assert not store.delete("a/key")


def test_another_store_in_its_place_is_not_taken_for_it(place: Place, tmp_path: Path) -> None:
    store = place.open()
    store.put("a/key", b"data")
    identity = store.identity()
    place.unmount()
    other = place.open()
    assert other.identity() != identity
    late = place.open(identity, create=False)
    assert {refused(question) for question in questions(late, tmp_path).values()} == {OTHER_STORE}
    assert [each.key for each in other.list()] == []


def test_who_only_reads_makes_no_store_and_takes_the_first_that_comes(place: Place, tmp_path: Path) -> None:
    reader = place.open(create=False)
    assert {refused(question) for question in questions(reader, tmp_path).values()} == {STORE_ABSENT}
    writer = place.open()
    writer.put("a/key", b"data")
    assert reader.get("a/key") == b"data"
    assert reader.identity() == writer.identity()


def test_a_store_of_an_earlier_version_is_read_as_it_is_and_gets_its_identity_from_who_may_write(
    place: Place, seaweedfs: SeaweedServer, s3_prefix: str, tmp_path: Path
) -> None:
    if "folder" in str(place.options["url"]):
        FolderStore(tmp_path / "store").put("a/key", b"data")
        (tmp_path / "store" / "identity").unlink()
    else:
        minio_store(seaweedfs, s3_prefix).put("a/key", b"data")
    reader = place.open(create=False)
    assert reader.get("a/key") == b"data"
    with pytest.raises(NotFoundError):
        reader.get("a/other")
    assert reader.identity() == ""
    identity = place.open().identity()
    assert reader.identity() == identity != ""
    assert [each.key for each in reader.list()] == ["a/key"]


def test_the_first_identity_is_noted_and_what_was_noted_before_holds(place: Place) -> None:
    noted: list[str] = []

    def note(identity: str) -> str:
        noted.append(identity)
        return identity

    store = place.open(note=note)
    assert noted == [] or noted == [store.identity()]
    assert store.identity() == store.identity() == noted[0]
    assert len(noted) == 1
    earlier = "0" * 32
    with pytest.raises(UnavailableError) as raised:
        place.open(note=lambda _: earlier).identity()
    assert raised.value.reason == OTHER_STORE


def test_of_racing_threads_one_makes_the_store_and_all_find_it(seaweedfs: SeaweedServer) -> None:
    keys = {"access_key": seaweedfs.access_key, "secret_key": seaweedfs.secret_key}
    bucket = f"detex-{secrets.token_hex(6)}"
    store = open_object_store(ObjectStoreSettings(url=seaweedfs.url(bucket), **keys))  # type: ignore[arg-type]
    barrier = threading.Barrier(8)

    def look(number: int) -> str:
        barrier.wait()
        if number % 2:
            store.check()
        return store.identity()

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(look, range(8)))) == 1


def test_of_racing_processes_all_find_the_same_identity(tmp_path: Path) -> None:
    script = f"""
        from detex_core.object_store import open_object_store
        from detex_core.settings import ObjectStoreSettings

        print(open_object_store(ObjectStoreSettings(url="folder://{tmp_path}/store")).identity())
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    found = {process.communicate()[0].strip() for process in processes}
    assert len(found) == 1
    assert "" not in found


def test_a_store_that_comes_back_between_answer_and_check_is_asked_again(tmp_path: Path) -> None:
    store = open_object_store(ObjectStoreSettings(url=f"folder://{tmp_path}/store"))
    store.put("a/key", b"data")
    inner = store._store
    away = tmp_path / "away"

    class Returning:
        """Away for the first read alone."""

        def __getattr__(self, name: str) -> object:
            return getattr(inner, name)

        def get(self, key: str, **options: object) -> bytes:
            if (tmp_path / "store").exists() and not away.exists():
                (tmp_path / "store").rename(away)
                try:
                    return inner.get(key, **options)  # type: ignore[arg-type]
                finally:
                    away.rename(tmp_path / "store")
                    away.mkdir()
            return inner.get(key, **options)  # type: ignore[arg-type]

    store._store = Returning()  # type: ignore[assignment]
    assert store.get("a/key") == b"data"


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=40))
def test_what_is_no_identity_is_none(tmp_path: Path, text: str) -> None:
    store = FolderStore(tmp_path / "store")
    identity = store.read_identity()
    path = tmp_path / "store" / "identity"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    try:
        assert store.read_identity() in ("", text.strip())
    finally:
        path.write_text(identity)
