"""The journal: whole events alone, one writer, states that follow from events."""

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detex_catalog.run.journal import FolderUnusableError, Journal, read_events
from detex_catalog.run.picture_folder import PICTURES, PictureFolder
from detex_catalog.run.run_state import RunState, seed_of_try
from detex_catalog.sharding import Shard, parse_shard

EVENTS = 5


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(min_value=0, max_value=2000), other=st.booleans())
def test_a_journal_that_was_cut_anywhere_holds_the_events_before(tmp_path_factory, cut: int, other: bool) -> None:
    folder = tmp_path_factory.mktemp("journal")
    with Journal(folder, Shard()) as journal:
        written = [journal.append("photos", sha256=["é" * number]) for number in range(EVENTS)]
    data = journal.path.read_bytes()
    journal.path.write_bytes(data[:cut])
    kept = data[:cut].count(b"\n")
    assert list(read_events(folder)) == written[:kept]
    with Journal(folder, Shard(1, 2) if other else Shard()) as again:
        last = again.append("photos", sha256=["last"])
    assert list(read_events(folder)) == [*written[:kept], last]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path, Shard()):
        with pytest.raises(FolderUnusableError, match="in use by another run"):
            Journal(tmp_path, Shard())
        Journal(tmp_path, Shard(0, 2)).close()
    Journal(tmp_path, Shard()).close()


def test_a_damaged_journal_is_named_not_guessed(tmp_path: Path) -> None:
    with Journal(tmp_path, Shard()) as journal:
        journal.append("photos", sha256=[])
    journal.path.write_text("nonsense\n" + journal.path.read_text())
    with pytest.raises(FolderUnusableError, match="line 1"):
        list(read_events(tmp_path))


def test_a_journal_keeps_its_order_when_clocks_go_back(tmp_path: Path) -> None:
    with Journal(tmp_path, Shard(0, 2)) as one, Journal(tmp_path, Shard(1, 2)) as other:
        early = other.append("photos", sha256=["early"])
        first = one.append("photos", sha256=["first"])
        second = one.append("photos", sha256=["second"])
        late = other.append("photos", sha256=["late"])
    second["time"] = "2000-01-01T00:00:00+00:00"
    one.path.write_text("".join(json.dumps(event) + "\n" for event in (first, second)))
    assert list(read_events(tmp_path)) == [early, first, second, late]


def test_what_could_not_be_written_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def full(file: int, data: bytes) -> int:
        if len(data) > 200:
            return write(file, data[:50])
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal(tmp_path, Shard()) as journal:
        first = journal.append("photos", sha256=[])
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(FolderUnusableError, match="No space left"):
                journal.append("photos", sha256=["0" * 200])
        second = journal.append("photos", sha256=["a"])
    assert list(read_events(tmp_path)) == [first, second]


def test_events_of_newer_versions_are_passed_over() -> None:
    state = RunState([{"event": "no_such_event", "time": ""}, {"event": "photos", "time": "", "sha256": ["a"]}])
    assert state.known_photos == {"a"}


@given(st.integers(min_value=0, max_value=2**32 - 1))
def test_tries_never_share_a_seed(first: int) -> None:
    seeds = [seed_of_try(first, number) for number in range(200)]
    assert seeds[0] == first
    assert len(set(seeds)) == 200
    assert all(0 <= seed < 2**32 for seed in seeds)


@given(st.integers(min_value=1, max_value=9), st.lists(st.text(min_size=1, max_size=9), unique=True, max_size=30))
def test_each_concept_is_one_shards(count: int, names: list[str]) -> None:
    for name in names:
        assert sum(Shard(index, count).takes(name) for index in range(count)) == 1


def test_shards_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_shard("") == Shard()
    assert parse_shard("2/3") == Shard(2, 3)
    for wrong in ("3/3", "1/0", "a/2", "-1/2", "1/2/3"):
        with pytest.raises(ValueError, match="must"):
            parse_shard(wrong)
    monkeypatch.delenv("JOB_COMPLETION_INDEX", raising=False)
    with pytest.raises(ValueError, match="JOB_COMPLETION_INDEX"):
        parse_shard("4")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    assert parse_shard("4") == Shard(3, 4)


def test_links_lead_nowhere_else(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = PictureFolder(tmp_path / "out", Shard())
    (tmp_path / "out" / PICTURES).mkdir(parents=True)
    (tmp_path / "out" / PICTURES / "link").symlink_to(elsewhere)
    with pytest.raises(FolderUnusableError, match="leads out"):
        folder.write(PICTURES, "link/a.png", b"png")
    with pytest.raises(ValueError, match="must stay below"):
        folder.write(PICTURES, "../a.png", b"png")
    folder.write(PICTURES, "a/b.png", b"png")
    assert folder.holds(PICTURES, "a/b.png", 3)
    assert json.dumps(sorted(path.name for path in elsewhere.iterdir())) == "[]"
