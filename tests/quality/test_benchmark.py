import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.quality.__main__ import main
from benchmarks.quality.base_accuracy import plan_named_pictures
from benchmarks.showroom.factors import POSES

pytestmark = pytest.mark.slow


def arguments(tmp_path: Path, model: Path, judge: Path, *further: str) -> list[str]:
    common = ["--base-model", str(model), "--judge", str(judge), "--steps", "2", "--work", str(tmp_path / "work")]
    return [*further, *common, "--out", str(tmp_path / "result.json")]


def test_one_subject_from_photos_to_report(
    tmp_path: Path, tiny_model_folder: Path, tiny_judge_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = ["--methods", "detex,custom_diffusion,textual_inversion,magic", "--set", "steps=2", "--subjects", "1"]
    methods += ["--photos", "2", "--held-out", "2", "--same-class", "1", "--others", "2"]
    command = arguments(tmp_path, tiny_model_folder, tiny_judge_path, *methods, "--seed", "5")
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "magic is left out" in told
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    rows = {row["what"]: row for row in result["rows"]}
    assert 0 <= rows["detex: reuse"]["value"] <= 1
    assert "custom_diffusion: reuse" not in rows
    assert rows["detex: drift"]["value"] == 0
    assert rows["custom_diffusion: drift"]["value"] > 0
    assert rows["detex: fidelity above custom_diffusion's"]["reach"] == ">= 0"
    assert rows["unseen subjects"]["met"] is False
    assert rows["detex: artifact"]["value"] > 0
    assert set(result["settings"]["not_measured"]) == {"magic"}
    page = (tmp_path / "result" / "index.html").read_text(encoding="utf-8")
    assert "textual_inversion" in page
    assert Image.open(tmp_path / "result" / "subject_00.webp").width > 500
    assert (tmp_path / "result" / "fidelity_against_editability.png").exists()
    # What was done is not done again, and tells the same.
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.npz")}
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("*.npz")} == kept
    again = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert again["rows"] == result["rows"]


def test_the_base_model_alone(tmp_path: Path, tiny_model_folder: Path, tiny_judge_path: Path) -> None:
    assert main(arguments(tmp_path, tiny_model_folder, tiny_judge_path, "base", "--pictures", "4")) == 0
    rows = {row["what"]: row for row in json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["rows"]}
    for what in ("class named", "scene named", "pose named", "main colour named"):
        assert 0 <= rows[what]["value"] <= 1
        assert rows[what]["reach"] == ">= 0.95"


def test_named_words_come_equally_often() -> None:
    planned = plan_named_pictures("pose", 24, seed=0)
    assert sorted(each.words["pose"] for each in planned) == sorted(POSES * 4)
    assert all(each.words["class"] in each.prompt for each in planned)
    assert planned == plan_named_pictures("pose", 24, seed=0)


def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--methods", "magic", "--out", str(tmp_path / "result.json")]) == 2
    assert "none can be measured" in capsys.readouterr().err
    assert main(["--photos", "7", "--out", str(tmp_path / "result.json")]) == 2
    assert "photos: must be 1 to " in capsys.readouterr().err
    assert main(["--judge", str(tmp_path / "nothing"), "--out", str(tmp_path / "result.json")]) == 2
    assert "no weights of a judge" in capsys.readouterr().err
