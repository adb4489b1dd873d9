"""Output on terminals that know few characters: escapes, and never a stack trace."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = "from detex_client.cli import main; main()"
SAY = """
import sys
from detex_client.cli import main
import detex_client.cli.application as application
@application.application.command("say")
def say(json_output: bool = False):
    from detex_client.cli.terminal import Terminal
    terminal = Terminal(json_output=json_output)
    terminal.say("写真 café")
    terminal.result("写真 café.png")
    terminal.document({"path": "写真 café.png"})
sys.argv = ["detex", "say", *sys.argv[1:]]
main()
"""


def run(code: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("encoding", ["utf-8", "cp932", "ascii", "latin-1"])
def test_every_text_can_be_said_in_every_encoding(encoding: str) -> None:
    done = run(SAY, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr
    assert b".png" in done.stdout


@pytest.mark.parametrize("encoding", ["utf-8", "cp932", "ascii"])
def test_json_stays_json_in_every_encoding(encoding: str) -> None:
    done = run(SAY, "--json-output", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode(encoding)) == {"path": "写真 café.png"}


def test_services_without_a_home_folder_say_what_to_set(tmp_path: Path) -> None:
    code = (
        "import pathlib\n"
        "def no_home(): raise RuntimeError('Could not determine home directory.')\n"
        "pathlib.Path.home = no_home\n"
        "from detex_generator.server import main\n"
        "main()\n"
    )
    done = run(code, HOME="", XDG_STATE_HOME="")
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"set HOME or XDG_STATE_HOME" in done.stderr
