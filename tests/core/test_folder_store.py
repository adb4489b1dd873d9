"""What only a folder can suffer: full disks, killed writers, several processes, keys below keys."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from detex_core.errors import (
    AlreadyExistsError,
    DataLossError,
    DetexError,
    FailedPreconditionError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)
from detex_core.object_store import FolderStore, ObjectStore

MEGABYTE = 1024**2


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or path.is_file())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False, text=True
    )
    if mount.returncode:
        pytest.skip(f"file systems may not be mounted here: {mount.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_is_reported_and_nothing_is_left(small_disk: Path, tmp_path: Path) -> None:
    store = FolderStore(small_disk / "store")
    store.put("kept", bytes(300_000))
    before = files_in(small_disk)
    source = tmp_path / "source"
    source.write_bytes(bytes(2 * MEGABYTE))
    for write in (
        lambda: store.put("kept", bytes(2 * MEGABYTE)),
        lambda: store.put("new/key", bytes(2 * MEGABYTE), if_absent=True),
        lambda: store.put_file("new/key", source),
    ):
        with pytest.raises(ResourceExhaustedError, match="full") as raised:
            write()
        assert raised.value.reason == "STORAGE_FULL"
        assert files_in(small_disk) == before
    assert store.get("kept") == bytes(300_000)
    store.put("new/key", bytes(300_000))  # what fits is still taken


def test_a_full_disk_under_the_target_of_a_read(store: ObjectStore, small_disk: Path) -> None:
    store.put("big", bytes(2 * MEGABYTE))
    with pytest.raises(ResourceExhaustedError, match="full"):
        store.get_file("big", small_disk / "target")
    assert files_in(small_disk) == []


def test_a_read_only_disk_is_permission_denied(small_disk: Path) -> None:
    store = FolderStore(small_disk / "store")
    store.put("key", b"data")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(PermissionDeniedError):
        store.put("other", b"data")
    with pytest.raises(PermissionDeniedError):
        FolderStore(small_disk / "another store")
    assert store.get("key") == b"data"


def test_the_largest_file_that_the_system_allows(tmp_path: Path) -> None:
    """Beyond the limit the kernel takes part of a write and refuses the rest, as on a disk that fills up."""
    script = f"""
        import resource
        from pathlib import Path
        from detex_core.errors import ResourceExhaustedError
        from detex_core.object_store import FolderStore

        resource.setrlimit(resource.RLIMIT_FSIZE, ({MEGABYTE}, {MEGABYTE}))
        store = FolderStore(Path({str(tmp_path / "store")!r}))
        store.put("small", bytes({MEGABYTE}))
        try:
            store.put("big", bytes({MEGABYTE} + 1))
        except ResourceExhaustedError as error:
            print(error.reason)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, check=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "STORAGE_FULL"
    store = FolderStore(tmp_path / "store")
    assert [each.key for each in store.list()] == ["small"]
    assert len(files_in(tmp_path / "store" / "data")) == 1
    assert files_in(tmp_path / "store" / "incoming") == []


def _create_all(folder: Path, number: int, start: float) -> list[str]:
    store = FolderStore(folder)
    while time.time() < start:
        pass  # all processes begin at the same moment
    won = []
    for each in range(40):
        try:
            store.put(f"race/{each}", b"%d" % number, if_absent=True)
            won.append(f"race/{each}")
        except AlreadyExistsError:
            continue
    return won


def test_of_racing_processes_one_creates_each_object(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        pool.map(abs, range(30))  # every process is up
        start = time.time() + 0.3
        wins = pool.starmap(_create_all, [(folder, number, start) for number in range(3)], chunksize=1)
    store = FolderStore(folder)
    assert sorted(key for won in wins for key in won) == sorted(f"race/{each}" for each in range(40))
    for number, won in enumerate(wins):
        assert all(store.get(key) == b"%d" % number for key in won)


def test_a_killed_writer_leaves_the_object_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store = FolderStore(folder)
    script = f"""
        from pathlib import Path
        from detex_core.object_store import FolderStore

        store = FolderStore(Path({str(folder)!r}))
        for number in range(1_000_000):
            store.put("key", bytes([number % 256]) * {4 * MEGABYTE})
            print(number, flush=True)
    """
    for _ in range(2):
        writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        data = store.get("key")  # verifies the hash
        assert len(data) == 4 * MEGABYTE
        assert len(set(data)) == 1
    store.put("key", b"goes on")
    assert store.get("key") == b"goes on"


def test_what_dead_writers_have_left_is_swept_after_a_day(tmp_path: Path) -> None:
    FolderStore(tmp_path)
    old, young = tmp_path / "incoming" / "old", tmp_path / "incoming" / "young"
    for path in (old, young):
        path.write_bytes(b"half")
    a_day_ago = time.time() - 25 * 3600
    os.utime(old, (a_day_ago, a_day_ago))
    FolderStore(tmp_path)
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize(("first", "second"), [("a", "a/b"), ("a/b", "a"), ("a", "a/b/c"), ("a/b/c", "a/b")])
def test_keys_below_keys_are_refused(folder_store: FolderStore, first: str, second: str) -> None:
    folder_store.put(first, b"first")
    for if_absent in (False, True):
        with pytest.raises(FailedPreconditionError) as raised:
            folder_store.put(second, b"second", if_absent=if_absent)
        assert raised.value.reason == "KEY_CONFLICT"
    assert [each.key for each in folder_store.list()] == [first]
    folder_store.delete(first)
    folder_store.put(second, b"second")
    assert folder_store.get(second) == b"second"


def test_nothing_grows_when_objects_are_replaced_and_deleted(folder_store: FolderStore, tmp_path: Path) -> None:
    for number in range(10):
        folder_store.put("a/key", b"%d" % number)
    assert len(files_in(tmp_path / "store" / "data")) == 1
    folder_store.delete("a/key")
    assert sorted(path.name for path in files_in(tmp_path / "store")) == ["identity", "lock"]
    assert list((tmp_path / "store" / "objects").iterdir()) == []


def test_objects_open_like_plain_files(folder_store: FolderStore, tmp_path: Path) -> None:
    folder_store.put("a/b.json", b"{}")
    assert (tmp_path / "store" / "objects" / "a" / "b.json").read_bytes() == b"{}"


def test_a_store_may_be_moved(folder_store: FolderStore, tmp_path: Path) -> None:
    folder_store.put("a/b", b"data")
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    assert FolderStore(tmp_path / "elsewhere").get("a/b") == b"data"


def test_missing_content_is_data_loss(folder_store: FolderStore, tmp_path: Path) -> None:
    folder_store.put("a/b", b"data")
    (tmp_path / "store" / "objects" / "a" / "b").resolve().unlink()
    with pytest.raises(DataLossError, match="a/b"):
        folder_store.get("a/b")


def test_what_others_link_to_is_not_deleted(folder_store: FolderStore, tmp_path: Path) -> None:
    outside = tmp_path / "model.safetensors"
    outside.write_bytes(b"weights")
    (tmp_path / "store" / "objects" / "model.safetensors").symlink_to(outside)
    assert folder_store.get("model.safetensors") == b"weights"
    folder_store.put("model.safetensors", b"others")
    folder_store.delete("model.safetensors")
    assert outside.read_bytes() == b"weights"


def test_a_folder_that_is_gone_is_reported_and_may_come_back(folder_store: FolderStore, tmp_path: Path) -> None:
    folder_store.put("key", b"data")
    (tmp_path / "store").rename(tmp_path / "away")
    with pytest.raises(UnavailableError):
        folder_store.check()
    with pytest.raises(DetexError):
        folder_store.put("other", b"")
    (tmp_path / "away").rename(tmp_path / "store")
    folder_store.check()
    assert folder_store.get("key") == b"data"
