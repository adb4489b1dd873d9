import json
import os
import pty
import resource
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from detex_client.cli.picture_files import slug, write_picture
from detex_client.cli.progress_display import clock
from detex_client.cli.serve import base_models_setting, data_environment
from detex_core.errors import UnavailableError
from detex_core.object_store.location import FolderLocation, parse_location
from detex_core.settings import BaseModelSettings
from detex_protos.v1 import common_pb2, trainer_pb2
from tests.client.conftest import Outcome, Scripted
from tests.client.scripted_services import VERSION, progress

Detex = Callable[..., Outcome]


def train(detex: Detex, photos: Path, *arguments: str) -> Outcome:
    return detex("train", str(photos), "--class-word", "mug", "--name", "my-mug", *arguments)


def test_train_tells_people_and_gives_the_name(detex: Detex, scripted: Scripted, photos: Path) -> None:
    scripted.trainer.news = deque([progress(1), progress(4), "end"])
    outcome = train(
        detex,
        photos,
        "--steps",
        "4",
        "--attribute",
        "pose",
        "--set",
        "key_value_learning_rate=1e-4",
        "--set",
        "mapper_fixed_norm=true",
    )
    assert outcome.exit_code == 0, outcome.stderr
    assert outcome.stdout == "my-mug\n"
    assert "3 photos with 2 masks" in outcome.stderr
    assert "Warning: Photo 0 is small." in outcome.stderr
    assert "Training: 1/4 steps, 8.0 it/s, total 0.5000" in outcome.stderr
    assert f"Trained [my-mug], version {VERSION}." in outcome.stderr
    job = scripted.trainer.jobs["job-0"]
    assert job.hyperparameters.key_value_learning_rate == 1e-4
    assert job.hyperparameters.mapper_fixed_norm
    assert list(job.attributes) == ["pose"]


def test_train_as_json_lines(detex: Detex, scripted: Scripted, photos: Path, tmp_path: Path) -> None:
    preview = trainer_pb2.JobPreview(step=2, prompt="[my-mug]", png=b"png")
    scripted.trainer.news = deque([progress(1), preview, "end"])
    outcome = train(detex, photos, "--json", "--previews", str(tmp_path / "previews"))
    events = outcome.events()
    assert [event["event"] for event in events] == ["training_set", "job", "progress", "preview", "job"]
    assert events[2]["losses"] == {"total": 0.5}
    assert Path(events[3]["path"]).read_bytes() == b"png"
    assert events[-1]["state"] == "succeeded"
    assert events[-1]["concept"] == {"name": "my-mug", "version": VERSION}
    assert outcome.stderr == "Warning: Photo 0 is small.\n"


def test_train_without_waiting(detex: Detex, scripted: Scripted, photos: Path) -> None:
    outcome = train(detex, photos, "--no-wait", "--no-find-masks")
    assert (outcome.exit_code, outcome.stdout) == (0, "job-0\n")
    assert len(scripted.trainer.files) == 3
    assert "detex jobs watch job-0" in outcome.stderr


def test_train_takes_masks_and_captions_in_order(detex: Detex, scripted: Scripted, photos: Path) -> None:
    files = [str(photos / f"photo_{index}.png") for index in (2, 0)]
    masks = [part for index in (1, 0) for part in ("--mask", str(photos / f"mask_{index}.png"))]
    captions = ["--caption", "on a table", "--caption", "lying"]
    outcome = detex("train", *files, "--class-word", "mug", "--name", "m", *masks, *captions, "--no-wait")
    assert outcome.exit_code == 0, outcome.stderr
    assert [file[1:4] for file in scripted.trainer.files] == [
        (0, "photo_2.png", "on a table"),
        (0, "mask_1.png", ""),
        (1, "photo_0.png", "lying"),
        (1, "mask_0.png", ""),
    ]


def test_failed_job_has_an_exit_code_of_its_own(detex: Detex, scripted: Scripted, photos: Path) -> None:
    scripted.trainer.news = deque([trainer_pb2.JobFailure(reason="DIVERGED", message="The loss is not a number.")])
    outcome = train(detex, photos, "--json")
    assert outcome.exit_code == 5
    assert outcome.events()[-1]["error"]["reason"] == "DIVERGED"
    assert "Error: Job job-0 published no concept: The loss is not a number." in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--name", "My Mug"), "concept_name"),
        (("--name", "m", "--set", "steps"), "--set"),
        (("--name", "m", "--set", "speed=3"), "one of steps, batch_size"),
        (("--name", "m", "--set", "mask_floor=much"), "must be a number"),
        (("--name", "m", "--set", "mapper_fixed_norm=perhaps"), "must be true or false"),
        (("--name", "m", "--steps", "0"), "hyperparameters.steps"),
        (("--name", "m", "--method", "magic"), "--method"),
        (("--name", "m", "--mask", "missing.png"), "one per photo"),
        ((), "--name"),
    ],
)
def test_wrong_input_to_train(detex: Detex, photos: Path, arguments: tuple[str, ...], said: str) -> None:
    outcome = detex("train", str(photos), "--class-word", "mug", *arguments)
    assert outcome.exit_code == 2
    assert said in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_generate_names_files_and_overwrites_none(detex: Detex, scripted: Scripted, tmp_path: Path) -> None:
    arguments = (
        "generate",
        "[my-mug] on a beach",
        "--count",
        "2",
        "--seed",
        "5",
        "--out",
        str(tmp_path / "new" / "out"),
    )
    first, second = detex(*arguments), detex(*arguments)
    assert [Path(line).name for line in first.stdout.splitlines()] == [
        "my-mug-on-a-beach_seed-5.png",
        "my-mug-on-a-beach_seed-6.png",
    ]
    assert [Path(line).name for line in second.stdout.splitlines()] == [
        "my-mug-on-a-beach_seed-5_2.png",
        "my-mug-on-a-beach_seed-6_2.png",
    ]
    for line in (first.stdout + second.stdout).splitlines():
        with Image.open(line) as image:
            assert image.size == (8, 8)


def test_generate_as_json_lines(detex: Detex, scripted: Scripted, tmp_path: Path) -> None:
    outcome = detex(
        *("generate", "[my-mug:pose:0] \\[plain\\]", "--json", "--out", str(tmp_path), "--seed", "1", "--steps", "3"),
        *("--guidance-scale", "7.5", "--solver", "euler", "--negative", "blur", "--size", "64x128", "--preview", "2"),
        *("--concept-version", "my-mug=v1", "--base-model", "showroom", "--guidance-interval", "0.2,0.8"),
    )
    events = outcome.events()
    assert [event["event"] for event in events] == ["queued", *["progress"] * 3, "preview", "picture"]
    assert events[0] == {"event": "queued", "request_id": "r-1", "queue_position": 3}
    assert Path(events[-1]["path"]).is_file()
    assert Path(events[-2]["path"]).parent == tmp_path / "previews"
    assert events[-1]["provenance"]["solver"] == "ddim"
    assert outcome.stderr == ""
    request = scripted.generator.requests[0]
    assert request.prompt == "[my-mug:pose:0] \\[plain\\]"
    assert (request.width, request.height, request.preview_interval_steps) == (64, 128, 2)
    assert (request.negative_prompt, request.base_model, request.guidance_scale) == ("blur", "showroom", 7.5)
    assert (request.guidance_interval.start, request.guidance_interval.end) == (0.2, 0.8)
    assert dict(request.concept_versions) == {"my-mug": "v1"}


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (("[unknown] on a beach",), 3, "There is no concept unknown."),
        (("a busy place",), 4, "Try again in 2.5 seconds."),
        (("a mug", "--guidance-scale", "nan"), 2, "guidance_scale: must be 0 to 50, got nan."),
        (
            ("a mug", "--guidance-interval", "all"),
            2,
            "--guidance-interval: must be START,END as fractions of the steps",
        ),
        (("a mug", "--size", "big"), 2, "--size: must be WIDTHxHEIGHT in pixels, for example 512x512, got big."),
        (("a mug", "--concept-version", "v1"), 2, "NAME=VERSION"),
        (("a mug", "--solver", "magic"), 2, "--solver"),
        (("a mug", "--generator", "127.0.0.1:1"), 4, "generator at 127.0.0.1:1 does not answer"),
        (("a mug", "--root-certificates", "missing.pem"), 2, "tls.root_certificates"),
    ],
)
def test_failures_of_generate(detex: Detex, arguments: tuple[str, ...], exit_code: int, said: str) -> None:
    outcome = detex("generate", *arguments)
    assert outcome.exit_code == exit_code, outcome.stderr
    assert said in outcome.stderr
    assert outcome.stdout == ""


def test_errors_as_json(detex: Detex) -> None:
    outcome = detex("generate", "a busy place", "--json")
    error = outcome.events()[-1]["error"]
    assert (error["code"], error["reason"], error["retry_delay_seconds"]) == ("UNAVAILABLE", "OVERLOADED", 2.5)
    outcome = detex("concepts", "show", "nope", "--json")
    assert outcome.exit_code == 3
    assert outcome.document()["error"]["reason"] == "CONCEPT_NOT_FOUND"


def test_unwritable_folder_is_a_failure_without_a_trace(detex: Detex, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = detex("generate", "a mug", "--out", str(tmp_path / "file"))
    assert outcome.exit_code == 1
    assert str(tmp_path / "file") in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_jobs(detex: Detex, scripted: Scripted, photos: Path) -> None:
    scripted.trainer.news = deque([progress(4), "end"])
    train(detex, photos, "--steps", "4")
    train(detex, photos, "--no-wait")
    listed = detex("jobs", "list")
    assert [line.split()[:3] for line in listed.stdout.splitlines()[1:]] == [
        ["job-0", "succeeded", "my-mug"],
        ["job-1", "queued", "my-mug"],
    ]
    found = detex("jobs", "list", "--state", "succeeded", "--json").document()["jobs"]
    assert [(job["job_id"], job["hyperparameters"]["steps"]) for job in found] == [("job-0", 4)]
    assert len(detex("jobs", "list", "--limit", "1", "--json").document()["jobs"]) == 1
    shown = detex("jobs", "show", "job-0")
    assert "steps         4/4" in shown.stdout
    assert detex("jobs", "show", "job-0", "--json").document()["state"] == "succeeded"
    assert detex("jobs", "watch", "job-0").exit_code == 0
    cancelled = detex("jobs", "cancel", "job-1", "--json")
    assert cancelled.document()["state"] == "cancelled"
    assert "Job job-1 is cancelled." in detex("jobs", "cancel", "job-1").stderr
    assert detex("jobs", "watch", "job-1").exit_code == 5
    assert detex("jobs", "show", "nope").exit_code == 3


def test_concepts(detex: Detex, scripted: Scripted) -> None:
    assert detex("concepts", "list").stdout == ""
    scripted.trainer.add_concept("my-mug")
    listed = detex("concepts", "list")
    assert listed.stdout.splitlines()[1].split()[:3] == ["[my-mug]", VERSION, "mug"]
    shown = detex("concepts", "show", "my-mug")
    assert "[my-mug] [my-mug:pose:0] [my-mug:pose:1]" in shown.stdout
    refused = detex("concepts", "delete", "my-mug")
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    deleted = detex("concepts", "delete", "my-mug", "--yes", "--json").document()
    assert deleted["references"] == [{"name": "my-mug", "version": VERSION}]
    assert detex("concepts", "delete", "my-mug", "--yes").exit_code == 3


DOUBTFUL = trainer_pb2.GetConceptReportResponse(
    verdict=trainer_pb2.VERDICT_DOUBTFUL,
    summary="The concept can be used, but look at its pictures first: Few photos. One scene.",
    findings=["Few photos.", "One scene."],
    choice="What is published is the state after step 340 of 400: of those after 220, 340, it is the closest.",
    report_json=b'{"verdict": "doubtful"}',
    report_png=b"png",
)
FIT = trainer_pb2.GetConceptReportResponse(
    verdict=trainer_pb2.VERDICT_FIT,
    summary="The concept is fit for use.",
    choice="Published is the state after all 2 steps.",
    report_json=b"{}",
)


@pytest.mark.parametrize(
    ("report", "told", "untold"),
    [
        (DOUBTFUL, ["Check its pictures first:", "  - Few photos.", "  - One scene."], []),
        (FIT, ["The concept is fit for use."], ["Warning: The concept"]),
        (None, [], ["report"]),
    ],
)
def test_training_ends_with_the_verdict(
    detex: Detex,
    scripted: Scripted,
    photos: Path,
    report: trainer_pb2.GetConceptReportResponse | None,
    told: list[str],
    untold: list[str],
) -> None:
    scripted.trainer.add_concept("my-mug")
    if report is not None:
        scripted.trainer.reports["my-mug"] = report
    scripted.trainer.news = deque([progress(4), "end"])
    outcome = train(detex, photos)
    assert outcome.exit_code == 0
    assert outcome.stdout == "my-mug\n"
    for text in [*told, *(["detex concepts report my-mug --out"] if report else [])]:
        assert text in outcome.stderr
    assert not [text for text in untold if text in outcome.stderr]
    shown = detex("jobs", "show", "job-0")
    assert (report is not None and report.summary in shown.stdout) or report is None
    verdict = detex("jobs", "show", "job-0", "--json").document()["verdict"]
    assert verdict == {DOUBTFUL.summary: "doubtful", FIT.summary: "fit"}.get(report.summary if report else "")
    scripted.trainer.news = deque(["end"])
    events = train(detex, photos, "--json").events()
    assert (events[-1]["event"] == "report") is (report is not None)


def test_what_was_learned_is_said_also_where_the_verdict_cannot_be_had(
    detex: Detex, scripted: Scripted, photos: Path
) -> None:
    scripted.trainer.report_error = UnavailableError("The object store does not answer.")
    scripted.trainer.news = deque([progress(4), "end"])
    outcome = train(detex, photos)
    assert (outcome.exit_code, outcome.stdout) == (0, "my-mug\n")
    assert "Trained [my-mug]" in outcome.stderr
    assert "Warning: The verdict on my-mug is not available now" in outcome.stderr
    assert detex("jobs", "show", "job-0").exit_code == 0
    assert detex("jobs", "watch", "job-0").exit_code == 0


def test_reports_of_concepts(detex: Detex, scripted: Scripted, tmp_path: Path) -> None:
    scripted.trainer.add_concept("my-mug")
    absent = detex("concepts", "report", "my-mug")
    assert (absent.exit_code, "REPORT_NOT_FOUND" in detex("concepts", "report", "my-mug", "--json").stdout) == (3, True)
    assert "verdict" not in detex("concepts", "show", "my-mug").stdout
    scripted.trainer.reports["my-mug"] = DOUBTFUL
    told = detex("concepts", "report", "my-mug")
    lines = [" ".join(line.split()) for line in told.stdout.splitlines()]
    assert lines == [
        f"concept [my-mug], version {VERSION}",
        "verdict Check its pictures first",
        "because Few photos.",
        "One scene.",
        f"checkpoint {DOUBTFUL.choice}",
    ]
    folder = tmp_path / "new" / "folder"
    for _ in range(2):  # the same again does no harm
        document = detex("concepts", "report", "my-mug", "--out", str(folder), "--json").document()
        assert (document["verdict"], document["findings"]) == ("doubtful", ["Few photos.", "One scene."])
        assert [Path(path).read_bytes() for path in document["files"]] == [DOUBTFUL.report_json, DOUBTFUL.report_png]
    (folder / "report.png").write_bytes(b"of another")
    refused = detex("concepts", "report", "my-mug", "--out", str(folder))
    assert refused.exit_code == 2
    assert "a different report.png" in refused.stderr
    assert (folder / "report.png").read_bytes() == b"of another"
    assert DOUBTFUL.summary in " ".join(detex("concepts", "show", "my-mug").stdout.split())
    assert detex("concepts", "show", "my-mug", "--json").document()["verdict"] == "doubtful"
    assert detex("concepts", "report", "nope").exit_code == 3


def test_methods_show_their_defaults_on_a_base_model(detex: Detex, scripted: Scripted) -> None:
    outcome = detex("methods", "--base-model", "sd15")
    assert outcome.exit_code == 0
    assert "Defaults on sd15 (family stable_diffusion)" in outcome.stderr
    rows = [line.split() for line in outcome.stdout.splitlines()]
    assert ["hyperparameter", "detex"] in rows
    assert ["steps", "500"] in rows
    assert ["subject_learning_rate", "0.002"] in rows
    assert ["mapper_fixed_norm", "false"] in rows
    document = json.loads(detex("methods", "--json").stdout)
    assert document["base_model"]["name"] == "showroom"
    assert document["methods"][0]["method"] == "detex"
    assert document["methods"][0]["defaults"]["steps"] == 500


def test_tenant_travels(detex: Detex, scripted: Scripted) -> None:
    detex("jobs", "list", "--tenant", "acme")
    assert scripted.trainer.tenants == ["acme"]


def test_overload_of_the_trainer_is_told(detex: Detex, scripted: Scripted) -> None:
    scripted.trainer.failures = deque(UnavailableError("The database does not answer.") for _ in range(4))
    outcome = detex("jobs", "list")
    assert outcome.exit_code == 4
    assert "Error: The database does not answer." in outcome.stderr


def test_groups_list_where_no_command_is_named(detex: Detex, scripted: Scripted) -> None:
    scripted.trainer.add_concept("my-mug")
    assert detex("concepts").stdout == detex("concepts", "list").stdout != ""
    assert detex("concepts", "--json").document() == detex("concepts", "list", "--json").document()
    assert detex("jobs", "--limit", "3").exit_code == 0
    for group in ("jobs", "concepts"):
        helped = detex(group, "--help")
        assert helped.exit_code == 0
        assert "show" in helped.stdout
        mistyped = detex(group, "lits")
        assert mistyped.exit_code == 2
        assert "Did you mean" in mistyped.stderr


def test_base_models(detex: Detex, scripted: Scripted) -> None:
    scripted.trainer.base_models = [
        common_pb2.BaseModel(name="sd15", family="stable_diffusion", width=512, height=768, is_default=True),
        common_pb2.BaseModel(name="showroom", width=128, height=128),
    ]
    assert [each["name"] for each in detex("base-models", "--json").document()["base_models"]] == ["sd15", "showroom"]
    lines = detex("base-models").stdout.splitlines()
    assert lines[1].split() == ["sd15", "stable_diffusion", "512", "x", "768", "default"]
    assert lines[2].split() == ["showroom", "128", "x", "128"]


def test_a_count_of_nothing_is_refused(detex: Detex) -> None:
    refused = detex("generate", "a mug", "--count", "0")
    assert refused.exit_code == 2
    assert "--count" in refused.stderr


def test_the_version_alone(detex: Detex) -> None:
    assert detex("--version").stdout.startswith("detex ")


def test_version(detex: Detex) -> None:
    versions = detex("version", "--json").document()
    assert f"detex {versions['detex']}" in detex("version").stdout


def test_help_shows_brackets_quotes_and_exit_codes(detex: Detex) -> None:
    assert "'[my-mug] with [my-mug:pose:2] on a beach'" in detex("generate", "--help").stdout
    assert "130 interrupted" in " ".join(detex("--help").stdout.split())


def test_serve_says_what_to_install(detex: Detex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detex_client.cli.serve.find_spec", lambda name: None if name == "sqlalchemy" else object())
    outcome = detex("serve", "trainer")
    assert outcome.exit_code == 1
    assert "The trainer needs sqlalchemy: install it with  pip install 'detex[trainer]'" in outcome.stderr


def test_serve_refuses_what_cannot_be_meant(detex: Detex) -> None:
    assert "must be left out for the generator" in detex("serve", "generator", "--database", "sqlite://").stderr
    assert detex("serve", "trainer", "--base-model", "showroom").exit_code == 2
    assert detex("serve", "studio").exit_code == 2


def test_settings_of_served_data_are_what_the_services_read(tmp_path: Path) -> None:
    folder = tmp_path / "a b#c?d%20e"
    environment = data_environment(folder, "trainer")
    location = parse_location(environment["DETEX_OBJECT_STORE_URL"])
    assert isinstance(location, FolderLocation)
    assert location.path == folder / "object_store"
    assert environment["DETEX_WORK_FOLDER"] == str(folder / "trainer")


def test_base_models_are_given_as_the_services_read_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    models = json.loads(base_models_setting(["a=models/sd", "b=embedded", "c=hub:owner/name"]))
    assert [BaseModelSettings(**model).source for model in models] == [
        str(tmp_path / "models" / "sd"),
        "embedded",
        "hub:owner/name",
    ]


def test_live_bars_on_a_terminal(scripted: Scripted, photos: Path) -> None:
    """In a terminal of its own, as people run it."""
    scripted.trainer.news = deque([progress(1), progress(2), "end"])
    command = [sys.executable, "-c", "from detex_client.cli import main; main()", "train", str(photos)]
    command += ["--class-word", "mug", "--name", "my-mug", "--trainer", scripted.trainer_address]
    master, slave = pty.openpty()
    environment = os.environ | {"COLUMNS": "120", "LINES": "40", "TERM": "xterm"}
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        seen = bytearray()
        try:
            while chunk := os.read(master, 65_536):
                seen += chunk
        except OSError:  # Linux says EIO where others say end of file
            pass
        finally:
            os.close(master)
    assert process.returncode == 0, seen
    text = seen.decode()
    assert "━" in text
    assert "Training" in text
    assert "4/4 steps" in text or "2/4 steps" in text
    assert "my-mug" in text


def test_slug() -> None:
    assert slug("[my-mug:pose:2], on   a Beach!") == "my-mug-pose-2-on-a-beach"
    assert slug("...") == "picture"
    assert slug("../../etc/passwd") == "etc-passwd"
    assert len(slug("word " * 100)) <= 60
    assert slug("マグカップ") == "マグカップ"


def test_failed_writes_leave_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # as a full disk, in the midst of the file
    try:
        with pytest.raises(OSError, match="File too large"):
            write_picture(tmp_path, "picture", bytes(1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00"), (7.2, "0:07"), (750, "12:30"), (3723, "1:02:03"), (-1, "0:00")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
