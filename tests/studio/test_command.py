"""`detex studio` as people start it."""

import os
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest

from detex_studio.server import main
from tests.e2e.conftest import DETEX

NOWHERE = {"DETEX_TRAINER_ADDRESS": "127.0.0.1:9", "DETEX_GENERATOR_ADDRESS": "127.0.0.1:9"}


def environment(**values: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DETEX_")}
    return kept | NOWHERE | values


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_address_and_ends_when_told(tmp_path: Path, ending: signal.Signals) -> None:
    """Also while a page listens to it."""
    process = subprocess.Popen(
        [*DETEX, "studio", "--listen", "127.0.0.1:0", "--data", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    try:
        assert process.stdout is not None
        name, _, address = process.stdout.readline().strip().partition(" ")
        assert name == "Studio:"
        request = urllib.request.Request(address, headers={"Accept-Language": "ja"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert '<html lang="ja">' in answer.read().decode()
        process.send_signal(ending)
        _, told = process.communicate(timeout=30)
        assert process.returncode in {0, 130, -ending}, told
        assert "Traceback" not in told
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "default" / "studio.sqlite").exists()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"DETEX_STUDIO_LISTEN_ADDRESS": "8080"}, "listen_address: "),
        ({"DETEX_STUDIO_MAX_PICTURES": "0"}, "max_pictures: "),
        ({"DETEX_STUDIO_ALLOWED_HOSTS": '["https://studio.example"]'}, "must be host names without scheme and port"),
        ({"DETEX_TOKEN_FILE": "/nowhere/token"}, "token_file: must be a readable file"),
        ({"DETEX_TENANT": "\u3042"}, "tenant: must be 1 to 63 of a-z"),
    ],
)
def test_wrong_settings_are_told_in_a_sentence(
    tmp_path: Path,
    values: dict[str, str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in {**NOWHERE, "DETEX_STUDIO_DATA_FOLDER": str(tmp_path), **values}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err
