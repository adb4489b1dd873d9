"""The contract of object stores, over a folder and over a real S3 server."""

import hashlib
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detex_core.errors import AbortedError, AlreadyExistsError, DataLossError, InvalidInputError, NotFoundError
from detex_core.object_store import ObjectInfo, ObjectStore
from detex_core.object_store.key import is_key
from tests.core.conftest import PART_SIZE_BYTES, Tamper

pytestmark = pytest.mark.slow

DATA = bytes(range(256)) * 5


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_what_is_put_is_got(store: ObjectStore) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    info = store.put("a/b.png", DATA, content_type="image/png")
    assert (info.key, info.size_bytes, info.sha256) == ("a/b.png", len(DATA), sha256(DATA))
    assert before <= info.modified <= datetime.now(UTC) + timedelta(seconds=2)
    assert store.get("a/b.png", expected_sha256=sha256(DATA)) == DATA
    stat = store.stat("a/b.png")
    assert (stat.key, stat.size_bytes, stat.sha256) == (info.key, info.size_bytes, info.sha256)


def test_empty_objects_are_objects(store: ObjectStore) -> None:
    store.put("empty", b"")
    assert store.get("empty") == b""
    assert store.stat("empty").size_bytes == 0


def test_a_second_put_replaces(store: ObjectStore) -> None:
    store.put("key", b"first")
    store.put("key", b"the second")
    assert store.get("key") == b"the second"
    assert store.stat("key").sha256 == sha256(b"the second")
    assert [each.size_bytes for each in store.list()] == [10]


def test_if_absent_keeps_what_is_there(store: ObjectStore) -> None:
    store.put("key", b"first", if_absent=True)
    with pytest.raises(AlreadyExistsError, match="key"):
        store.put("key", b"second", if_absent=True)
    assert store.get("key") == b"first"
    store.delete("key")
    store.put("key", b"third", if_absent=True)
    assert store.get("key") == b"third"


def race(count: int, action: Callable[[int], object]) -> list[object]:
    """Let `count` threads act at the same moment; what each returned or raised."""
    barrier = threading.Barrier(count)

    def run(number: int) -> object:
        barrier.wait()
        try:
            return action(number)
        except AlreadyExistsError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_of_racing_creators_one_wins(store: ObjectStore) -> None:
    outcomes = race(16, lambda number: store.put("race/key", b"%d" % number, if_absent=True))
    winners = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, ObjectInfo)]
    assert len(winners) == 1
    assert store.get("race/key") == b"%d" % winners[0]


def test_readers_see_whole_objects_while_writers_replace_them(store: ObjectStore) -> None:
    contents = [bytes([number]) * (20_000 + number) for number in range(4)]
    store.put("key", contents[0])
    deadline = time.monotonic() + 0.8

    def work(number: int) -> int:
        done = 0
        while time.monotonic() < deadline:
            if number < 2:
                store.put("key", contents[(number + done) % 4])
            else:
                assert store.get("key") in contents
            done += 1
        return done

    outcomes = race(5, work)
    assert all(isinstance(done, int) and done > 0 for done in outcomes)


def test_absent_keys_are_not_found(store: ObjectStore, tmp_path: Path) -> None:
    store.put("there/is", b"something")
    for key in ("nothing", "there", "there/is/nothing"):
        with pytest.raises(NotFoundError, match=key):
            store.get(key)
        with pytest.raises(NotFoundError, match=key):
            store.stat(key)
        with pytest.raises(NotFoundError, match=key):
            store.get_file(key, tmp_path / "file")
        assert store.delete(key) is False
    assert not (tmp_path / "file").exists()


def test_delete_says_whether_there_was_one(store: ObjectStore) -> None:
    store.put("a/b", DATA)
    assert store.delete("a/b") is True
    assert store.delete("a/b") is False
    assert list(store.list()) == []


def test_changed_content_is_data_loss(store: ObjectStore, tamper: Tamper, tmp_path: Path) -> None:
    store.put("key", DATA)
    tamper("key", DATA[:-1] + bytes([DATA[-1] ^ 1]))
    with pytest.raises(DataLossError, match="key"):
        store.get("key")
    target = tmp_path / "target"
    target.write_bytes(b"as it was")
    with pytest.raises(DataLossError, match="key"):
        store.get_file("key", target)
    assert target.read_bytes() == b"as it was"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["target"]


def test_content_that_the_reader_does_not_expect_is_data_loss(store: ObjectStore, tmp_path: Path) -> None:
    store.put("key", DATA)
    with pytest.raises(DataLossError, match=sha256(b"other")):
        store.get("key", expected_sha256=sha256(b"other"))
    with pytest.raises(DataLossError, match=sha256(b"other")):
        store.get_file("key", tmp_path / "file", expected_sha256=sha256(b"other"))
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize("size_bytes", [0, 1, PART_SIZE_BYTES, PART_SIZE_BYTES + 1, 2 * PART_SIZE_BYTES + 12_345])
def test_files_of_any_size_go_and_come(store: ObjectStore, tmp_path: Path, size_bytes: int) -> None:
    source, target = tmp_path / "source", tmp_path / "sub" / "target"
    source.write_bytes(os.urandom(size_bytes))
    info = store.put_file("big", source)
    assert (info.size_bytes, info.sha256) == (size_bytes, sha256(source.read_bytes()))
    assert store.stat("big").sha256 == info.sha256
    assert store.get_file("big", target, expected_sha256=info.sha256).size_bytes == size_bytes
    assert target.read_bytes() == source.read_bytes()


def test_large_files_keep_if_absent_even_in_a_race(store: ObjectStore, tmp_path: Path) -> None:
    sources = [tmp_path / f"source{number}" for number in range(4)]
    for source in sources:
        source.write_bytes(os.urandom(PART_SIZE_BYTES + 1_000))
    outcomes = race(4, lambda number: store.put_file("big", sources[number], if_absent=True))
    winners = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, ObjectInfo)]
    assert len(winners) == 1
    assert store.get("big") == sources[winners[0]].read_bytes()
    with pytest.raises(AlreadyExistsError):
        store.put_file("big", sources[0], if_absent=True)


@pytest.mark.skipif(sys.platform != "linux", reason="takes a file of Linux that counts how much is read")
def test_a_file_that_changes_while_it_is_read_is_not_stored(store: ObjectStore) -> None:
    for if_absent in (False, True):
        with pytest.raises(AbortedError, match="changed"):
            store.put_file("key", Path("/proc/self/io"), if_absent=if_absent)
    with pytest.raises(NotFoundError):
        store.stat("key")


ORDERED = ["A", "b-c", "b.c/d", "b/c", "b/c-d/e", "b/d", "b0", "b_", "c/d/e/f", "c/d/g"]


def test_lists_are_in_the_order_of_keys(store: ObjectStore) -> None:
    for key in reversed(ORDERED):
        store.put(key, key.encode())
    assert [each.key for each in store.list()] == ORDERED
    assert [each.key for each in store.list("b/c")] == ["b/c", "b/c-d/e"]
    assert [each.key for each in store.list("b/")] == ["b/c", "b/c-d/e", "b/d"]
    assert [each.key for each in store.list("nothing")] == []
    for position, key in enumerate(ORDERED):
        assert [each.key for each in store.list(after=key)] == ORDERED[position + 1 :]
    assert [each.key for each in store.list("b", after="b/")] == ["b/c", "b/c-d/e", "b/d", "b0", "b_"]
    listed = next(iter(store.list("b/c")))
    assert listed.size_bytes == 3
    assert abs(listed.modified - datetime.now(UTC)) < timedelta(minutes=1)


def test_lists_longer_than_a_page_of_s3(store: ObjectStore) -> None:
    keys = [f"many/{number:04}" for number in range(1_050)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.put(key, b""), keys))
    assert [each.key for each in store.list("many/")] == keys


MALFORMED = ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a b", "ä", "a\n", "a\0", "a\\b", "a" * 201]


@pytest.mark.parametrize("key", [*MALFORMED, "a/" * 300 + "a"])
def test_malformed_keys_are_refused(store: ObjectStore, tmp_path: Path, key: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    calls: list[Callable[[], Any]] = [
        lambda: store.put(key, b""),
        lambda: store.put(key, b"", if_absent=True),
        lambda: store.put_file(key, tmp_path / "file"),
        lambda: store.get(key),
        lambda: store.get_file(key, tmp_path / "file"),
        lambda: store.stat(key),
        lambda: store.delete(key),
    ]
    for call in calls:
        with pytest.raises(InvalidInputError) as raised:
            call()
        assert [violation.field for violation in raised.value.violations] == ["key"]
    assert list(store.list()) == []


SHARED_FIXTURES = [HealthCheck.function_scoped_fixture]


@given(key=st.text(max_size=30) | st.text(alphabet="aZ9._-/", max_size=30))
@settings(max_examples=80, deadline=None, suppress_health_check=SHARED_FIXTURES)
def test_any_text_is_a_key_or_refused(folder_store: Any, tmp_path: Path, key: str) -> None:
    outside = {path for path in tmp_path.iterdir() if path.name != "store"}
    if is_key(key):
        folder_store.put(key, b"x")
        assert folder_store.get(key) == b"x"
        folder_store.delete(key)
    else:
        with pytest.raises(InvalidInputError):
            folder_store.put(key, b"x")
    assert list(folder_store.list()) == []
    assert {path for path in tmp_path.iterdir() if path.name != "store"} == outside


KEYS = st.sampled_from(ORDERED)
OPERATIONS = st.one_of(
    st.tuples(st.just("put"), KEYS, st.binary(max_size=20), st.booleans()),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("get"), KEYS),
    st.tuples(st.just("list"), st.sampled_from(["", "b", "b/", "b/c", "c/d", "x"]), KEYS | st.just("")),
)


@given(operations=st.lists(OPERATIONS, max_size=14))
@settings(max_examples=25, deadline=None, suppress_health_check=SHARED_FIXTURES)
def test_a_store_behaves_like_a_dictionary(store: ObjectStore, operations: list[tuple[Any, ...]]) -> None:
    base = f"run-{secrets.token_hex(8)}/"  # the store lasts for all runs
    model: dict[str, bytes] = {}
    for name, *arguments in operations:
        match name, arguments:
            case "put", [key, data, if_absent]:
                if if_absent and key in model:
                    with pytest.raises(AlreadyExistsError):
                        store.put(base + key, data, if_absent=True)
                else:
                    store.put(base + key, data, if_absent=if_absent)
                    model[key] = data
            case "delete", [key]:
                assert store.delete(base + key) == (model.pop(key, None) is not None)
            case "get", [key]:
                if key in model:
                    assert store.get(base + key) == model[key]
                    assert store.stat(base + key).size_bytes == len(model[key])
                else:
                    with pytest.raises(NotFoundError):
                        store.get(base + key)
            case "list", [prefix, after]:
                listed = [(each.key, each.size_bytes) for each in store.list(base + prefix, after=base + after)]
                assert listed == [
                    (base + key, len(model[key])) for key in sorted(model) if key.startswith(prefix) and key > after
                ]


def test_what_others_put_there_has_no_known_hash(store: ObjectStore, put_from_outside: Tamper) -> None:
    put_from_outside("models/a/config.json", DATA)
    assert store.stat("models/a/config.json").sha256 == ""
    assert store.get("models/a/config.json") == DATA
    assert [each.key for each in store.list("models/")] == ["models/a/config.json"]
    with pytest.raises(DataLossError):
        store.get("models/a/config.json", expected_sha256=sha256(b""))
    assert store.delete("models/a/config.json") is True
