"""Whole runs on real services: what is drawn, what is drawn again, what a kill at any moment leaves."""

import csv
import hashlib
import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.catalog.conftest import Outcome, Services, events_of, product, start, write_catalog

Done = tuple[Path, Path]
Command = Callable[..., Outcome]
NAMES = ("cup", "watch")
LENIENT = ("--min-likeness", "0", "--min-duplicate-distance", "0", "--min-contrast", "0")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("catalog_runs")]


@pytest.fixture(scope="module")
def done(services: Services, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A catalog of two products and ten pictures, run to its end through kills at several moments."""
    folder = tmp_path_factory.mktemp("killed")
    rows = [
        product("green-mug", "cup", scenes=["on a beach", "in the snow"], count=3),
        product("red-clock", "watch", template=["a photo of a {concept} in a kitchen"], count=3),
        {"sku": "CUP-2", "concept": "cup", "template": ["a {concept} with {concept:pose:1} and a [watch]"], "steps": 2},
    ]
    file, out = write_catalog(folder / "night.jsonl", rows), folder / "out"
    reached: list[Callable[[Counter[str]], bool]] = [
        lambda seen: seen["training"] >= 1,
        lambda seen: seen["job"] >= 1,
        lambda seen: seen["concept"] >= 1,
        lambda seen: seen["accepted"] >= 2,
        lambda seen: seen["accepted"] >= 6,
    ]
    for moment in reached:
        kill_when(moment, file, out, services)
    process = start("run", file, "--out", out, *LENIENT, env=services.environment)
    assert process.wait(240) == 0, process.stderr.read() if process.stderr else ""
    return file, out


def kill_when(moment: Callable[[Counter[str]], bool], file: Path, out: Path, services: Services) -> None:
    process = start("run", file, "--out", out, *LENIENT, env=services.environment)
    deadline = time.monotonic() + 240
    try:
        while not moment(Counter(event["event"] for event in events_of(out))):
            assert process.poll() in (None, 0), process.stderr.read() if process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        process.kill()
        process.wait()


def test_kills_lose_nothing_and_double_nothing(done: Done, services: Services) -> None:
    _, out = done
    accepted = Counter(event["output"] for event in events_of(out) if event["event"] == "accepted")
    wanted = {f"CUP/CUP-{number:03d}.png" for number in range(1, 7)}
    wanted |= {f"WATCH/WATCH-{number:03d}.png" for number in range(1, 4)} | {"CUP-2/CUP-2-001.png"}
    assert accepted == dict.fromkeys(wanted, 1)
    assert {str(path.relative_to(out / "pictures")) for path in (out / "pictures").rglob("*.png")} == wanted
    for event in events_of(out):
        if event["event"] == "accepted":
            data = (out / "pictures" / event["output"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == event["sha256"]
    assert len(list(services.trainer.jobs(concept_name="cup"))) == 1
    assert len(list(services.trainer.jobs(concept_name="watch"))) == 1


def test_pictures_are_what_was_asked_for(done: Done) -> None:
    _, out = done
    with Image.open(out / "pictures/CUP/CUP-004.png") as image:
        assert image.size == (16, 16)
        assert '"prompt": "a photo of a [cup] in the snow"' in image.text["detex"]  # type: ignore[attr-defined]
    with (out / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        results = list(csv.DictReader(file))
    assert [result["status"] for result in results] == ["accepted"] * 10
    assert [result["seed"] for result in results[:3]] == ["5", "6", "7"]
    assert all(float(result["likeness"]) >= 0 for result in results)


def test_the_same_file_again_does_nothing_and_needs_no_service(done: Done, command: Command) -> None:
    file, out = done
    before = events_of(out)
    again = command("run", file, "--out", out, "--json")
    assert again.exit_code == 0, again.stderr
    assert again.events()[-1]["accepted"] == 10
    assert events_of(out) == before
    written = (out / "report.html").stat().st_mtime_ns
    assert command("run", file, "--out", out).exit_code == 0
    assert (out / "report.html").stat().st_mtime_ns == written


def test_a_dry_run_tells_what_is_left_and_how_long(done: Done, services: Services, command: Command) -> None:
    file, out = done
    more = file.with_name("more.jsonl")
    more.write_text(file.read_text() + '{"sku": "CUP-3", "concept": "cup", "count": 60}\n')
    before = events_of(out)
    told = command(
        "run", more, "--out", out, "--dry-run", "--price-per-gpu-hour", "3.6", "--json", env=services.environment
    )
    (found,) = told.events()
    assert (found["pictures"], found["to_draw"], found["to_train"]) == (70, 60, [])
    assert found["minutes"] > 0
    assert found["cost"] == pytest.approx(found["minutes"] * 0.06, abs=0.011)
    unknown = command("run", more, "--out", out.with_name("new"), "--dry-run", env=services.environment)
    assert "70 to generate" in unknown.stdout
    assert "The time of a picture is not known" in unknown.stdout
    assert events_of(out) == before


def test_a_changed_file_does_what_changed(done: Done, services: Services, command: Command) -> None:
    file, out = done
    changed = file.with_name("changed.jsonl")
    changed.write_text(
        file.read_text().replace("in a kitchen", "in a city") + '{"sku": "NEW", "concept": "cup", "steps": 2}\n'
    )
    before = len(events_of(out))
    assert command("run", changed, "--out", out, *LENIENT, env=services.environment).exit_code == 0
    drawn = [event["output"] for event in events_of(out)[before:] if event["event"] == "accepted"]
    assert sorted(drawn) == ["NEW/NEW-001.png", *(f"WATCH/WATCH-{number:03d}.png" for number in range(1, 4))]
    assert len(list(services.trainer.jobs(concept_name="watch"))) == 1
    # And back again: nothing that was asked for is missing, whatever lay there meanwhile.
    assert command("run", file, "--out", out, *LENIENT, env=services.environment).exit_code == 0
    (out / "pictures/CUP/CUP-001.png").unlink()
    before = len(events_of(out))
    assert command("run", file, "--out", out, *LENIENT, env=services.environment).exit_code == 0
    drawn = [event["output"] for event in events_of(out)[before:] if event["event"] == "accepted"]
    assert drawn == ["CUP/CUP-001.png"]


def test_what_fails_the_checks_is_redrawn_then_put_aside_and_marks_are_heeded(
    done: Done, services: Services, command: Command, tmp_path: Path
) -> None:
    rows: list[dict[str, object]] = [{"sku": "MUG", "concept": "cup", "steps": 2, "seed": 1, "count": 2}]
    rows[0] |= {"references": product("green-mug", "cup")["photos"], "min_likeness": 2, "max_redraws": 1}
    file, out = write_catalog(tmp_path / "strict.jsonl", rows), tmp_path / "out"
    first = command("run", file, "--out", out, "--json", env=services.environment)
    assert first.exit_code == 1, first.stderr
    tries = [event for event in events_of(out) if event["event"] == "try"]
    assert Counter(event["output"] for event in tries) == {"MUG/MUG-001.png": 2, "MUG/MUG-002.png": 2}
    assert len({event["seed"] for event in tries}) == 4
    assert all("likeness: must be at least 2" in event["reasons"][0] for event in tries)
    assert sorted(path.name for path in (out / "review").rglob("*.png")) == ["MUG-001.png", "MUG-002.png"]
    assert not list((out / "pictures").rglob("*.png"))

    hashes = {}
    with (out / "results.csv").open(encoding="utf-8-sig", newline="") as results:
        for result in csv.DictReader(results):
            hashes[result["output"]] = result["sha256"][:16]
    marks = [
        f"MUG/MUG-001.png,{hashes['MUG/MUG-001.png']},approve",
        f"MUG/MUG-002.png,{hashes['MUG/MUG-002.png']},reject",
    ]
    (out / "marks (1).csv").write_text("output,sha256,mark\r\n" + "\r\n".join(marks) + "\r\n")
    second = command("run", file, "--out", out, "--json", env=services.environment)
    assert second.exit_code == 1
    assert second.events()[0] == {
        "event": "marks",
        "message": "Marks: 1 approved, 1 rejected.",
        "approved": 1,
        "rejected": 1,
    }
    assert (out / "pictures/MUG/MUG-001.png").is_file()
    later = [event for event in events_of(out) if event["event"] == "try"][4:]
    assert [event["output"] for event in later] == ["MUG/MUG-002.png"] * 2
    assert len({event["seed"] for event in [*tries, *later]}) == 6, "a rejected picture takes other seeds"
    before = events_of(out)
    assert command("run", file, "--out", out, "--review-is-good").exit_code == 0, "marks are heeded once"
    assert events_of(out) == before


def test_sigterm_ends_in_order_and_the_next_run_goes_on(done: Done, services: Services, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"sku": f"MANY-{number}", "concept": "cup", "count": 64, "steps": 25} for number in range(2)
    ]
    file, out, metrics = write_catalog(tmp_path / "many.jsonl", rows), tmp_path / "out", tmp_path / "run.prom"
    # Nothing that is on its way is waited for, so that something is left to do, however fast the machine is.
    options = (*LENIENT, "--drain", "0", "--metrics-file", metrics)
    process = start("run", file, "--out", out, *options, env=services.environment)
    deadline = time.monotonic() + 120
    while not any(event["event"] == "accepted" for event in events_of(out)):
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 4
    assert (out / "report.html").is_file()
    assert 'detex_catalog_exit_code{catalog="many",shard="0"} 4.0' in metrics.read_text()
    process = start("run", file, "--out", out, *LENIENT, env=services.environment)
    assert process.wait(120) == 0
    accepted = Counter(event["output"] for event in events_of(out) if event["event"] == "accepted")
    assert len(accepted) == 128
    assert set(accepted.values()) == {1}


def test_shards_share_the_work(done: Done, services: Services, command: Command) -> None:
    rows: list[dict[str, object]] = [
        {"sku": f"{concept}-{number}", "concept": concept, "steps": 1} for concept in NAMES for number in range(5)
    ]
    file = write_catalog(done[0].with_name("sharded.jsonl"), rows)
    out = file.with_name("sharded")
    environment = services.environment | {"JOB_COMPLETION_INDEX": "1"}
    assert command("run", file, "--out", out, "--shard", "0/2", *LENIENT, env=services.environment).exit_code == 0
    last = command("run", file, "--out", out, "--shard", "2", *LENIENT, "--json", env=environment)
    assert last.exit_code == 0
    assert last.events()[-1]["accepted"] == 10
    accepted = Counter(event["output"] for event in events_of(out) if event["event"] == "accepted")
    assert len(accepted) == 10
    assert set(accepted.values()) == {1}
    before = events_of(out)
    assert command("run", file, "--out", out).exit_code == 0, "another number of shards knows what was done"
    assert events_of(out) == before


def test_what_services_refuse_is_told_by_row_and_column(
    done: Done, services: Services, command: Command, tmp_path: Path
) -> None:
    rows: list[dict[str, object]] = [
        {"sku": "A", "concept": "cup", "template": ["{concept} " + "word " * 200]},
        {"sku": "B", "concept": "nobodys"},
        {"sku": "C", "concept": "cup", "size": "4096x4096"},
        {"sku": "D", "concept": "cup", "base_model": "other"},
    ]
    file = write_catalog(tmp_path / "refused.jsonl", rows)
    told = command("check", file, env=services.environment)
    assert told.exit_code == 2
    assert "row 4, column base_model" in told.stderr
    rows.pop()
    told = command("run", write_catalog(file, rows), "--out", tmp_path / "out", env=services.environment)
    assert told.exit_code == 2
    assert [line.split(":")[0] for line in told.stderr.splitlines()[:-1]] == [
        "row 1, column template",
        "row 2, column concept",
        "row 3, column size",
    ]
    assert {event["event"] for event in events_of(tmp_path / "out")} == set()


def test_services_that_are_away_end_the_run(command: Command, tmp_path: Path) -> None:
    file = write_catalog(tmp_path / "a.jsonl", [product("green-mug", "lonely")])
    told = command("run", file, "--out", tmp_path / "out", "--patience", "1", "--json")
    assert told.exit_code == 3
    assert told.events()[0]["event"] == "waiting"
    assert "does not answer" in told.stderr


def cancel_job(number: int, file: Path, out: Path, services: Services) -> int:
    """Start a run, cancel the job that it submits, the so-manieth of the folder; the exit code of the run."""
    process = start("run", file, "--out", out, *LENIENT, env=services.environment)
    deadline = time.monotonic() + 120
    while len(jobs := [event["job_id"] for event in events_of(out) if event["event"] == "job"]) < number:
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert len(set(jobs)) == number
    services.trainer.cancel(jobs[-1])
    return process.wait(120)


def test_a_training_that_fails_is_told_and_tried_again_by_the_next_run(services: Services, tmp_path: Path) -> None:
    file = write_catalog(tmp_path / "a.jsonl", [product("pink-teapot", "pot", training_steps=20_000)])
    out = tmp_path / "out"
    for number in (1, 2):
        assert cancel_job(number, file, out, services) == 1
    results = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [(result["status"], result["reasons"]) for result in results] == [
        ("failed", "concept pot could not be trained: its job was cancelled")
    ]


def test_a_concept_that_is_gone_is_trained_again(done: Done, services: Services, command: Command) -> None:
    file, out = done
    services.trainer.delete_concept("watch")
    assert command("run", file, "--out", out).exit_code == 0, "what is drawn stays"
    (out / "pictures/WATCH/WATCH-001.png").unlink()
    assert cancel_job(3, file, out, services) == 1
    assert len(list(services.trainer.jobs(concept_name="watch"))) == 2
    assert (out / "pictures/WATCH/WATCH-002.png").is_file()
