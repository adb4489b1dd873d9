"""Settings of the trainer that are refused, with a sentence that repeats no secret."""

import os
import subprocess
import sys

import pytest
from pydantic import ValidationError

from detex_trainer.settings import TrainerSettings


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://user:hush@host/jobs", "got mysql"),
        ("sqlite+aiosqlite:////jobs.db", "got sqlite"),
        (
            "postgresql+psycopg://user:hush:5432@host:hush/jobs",
            "with special characters of the password percent-encoded",
        ),
        ("postgresql+psycopg://user@host:hush/jobs", "with special characters of the password percent-encoded"),
        ("postgresql+pg8000://user:hush@host/jobs", "the driver pg8000 is not installed"),
        ("hush", "must be an SQLAlchemy URL"),
        ("oracledb://user:hush@host", "must be an SQLAlchemy URL"),
    ],
)
def test_databases_that_jobs_cannot_be_kept_in_are_refused(url: str, said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        TrainerSettings(database_url=url)
    assert said in str(raised.value)
    assert "hush" not in str(raised.value)


def test_a_line_end_is_no_part_of_a_database() -> None:
    settings = TrainerSettings(database_url="postgresql+psycopg://user:secret@host/jobs\n", segmenter="none\n")
    assert settings.jobs_url() == "postgresql+psycopg://user:secret@host/jobs"
    assert settings.segmenter == "none"


def test_a_trainer_without_a_home_folder_says_what_to_set() -> None:
    code = (
        "import pathlib\n"
        "def no_home(): raise RuntimeError('Could not determine home directory.')\n"
        "pathlib.Path.home = no_home\n"
        "from detex_trainer.server import main\n"
        "raise SystemExit(main())\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DETEX_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"HOME": "", "XDG_STATE_HOME": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "set HOME or XDG_STATE_HOME" in done.stderr
