"""What the command line makes of bytes that are no UTF-8, and of what files and environments hold beside a value."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from detex_client import ConceptReference, DetexClientError, GeneratorClient, PictureRequest, TrainerClient
from tests.client.conftest import Scripted

BYTES_AS_TEXT = "mug\udcff"

CALLS: dict[str, Callable[[TrainerClient], object]] = {
    "job_id": lambda client: client.job(BYTES_AS_TEXT),
    "training_set_id": lambda client: client.training_set(BYTES_AS_TEXT),
    "name": lambda client: client.concept(BYTES_AS_TEXT),
    "version": lambda client: client.delete_concept("my-mug", BYTES_AS_TEXT),
    "concept_name": lambda client: list(client.jobs(concept_name=BYTES_AS_TEXT)),
    "base_model": lambda client: client.submit("set", name="my-mug", base_model=BYTES_AS_TEXT),
}


@pytest.mark.parametrize("field", CALLS)
def test_texts_that_are_no_unicode_are_refused_by_field(field: str) -> None:
    with TrainerClient("127.0.0.1:1") as client, pytest.raises(DetexClientError) as raised:
        CALLS[field](client)
    assert raised.value.code.name == "INVALID_ARGUMENT"
    assert [violation.field for violation in raised.value.violations] == [field]


def test_pinned_versions_that_are_no_unicode_are_refused() -> None:
    with pytest.raises(DetexClientError, match="concept_versions"):
        PictureRequest("[my-mug]", concept_versions={"my-mug": BYTES_AS_TEXT}).to_wire()
    assert PictureRequest("a", concept_versions={"my-mug": "1"}).to_wire().concept_versions == {"my-mug": "1"}
    assert ConceptReference("my-mug", "1").to_wire().version == "1"


@pytest.mark.parametrize("around", ["{}\n", " {} ", "\ufeff{}\r\n"])
def test_what_files_have_around_address_and_tenant_does_not_count(scripted: Scripted, around: str) -> None:
    address, tenant = around.format(scripted.trainer_address), around.format("acme")
    with TrainerClient(address, tenant) as client:
        list(client.jobs())
    assert scripted.trainer.tenants[-1] == "acme"


@pytest.mark.parametrize("text", [BYTES_AS_TEXT, "two\nlines", "nul\0"])
def test_addresses_and_tenants_that_no_call_can_carry_are_refused(text: str) -> None:
    with pytest.raises(DetexClientError, match=r"^address: must be host:port, got"):
        GeneratorClient(text)
    with pytest.raises(DetexClientError, match=r"^tenant: must be 1 to 63 of"):
        GeneratorClient("127.0.0.1:1", text)
    with pytest.raises(DetexClientError, match=r"^tenant: must be 1 to 63 of"):
        GeneratorClient("127.0.0.1:1", "münchen")


@pytest.mark.parametrize("arguments", [("jobs", "show", BYTES_AS_TEXT), ("photos", "delete", BYTES_AS_TEXT)])
def test_the_command_tells_them(arguments: tuple[str, ...]) -> None:
    done = _command(*arguments, "--trainer", "127.0.0.1:1")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr


def test_a_closed_standard_output_is_no_defect() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" version --json >&-', sys.executable, _MAIN],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_home_folders_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    done = _command("serve", "generator", "--base-model", "mine=~no-user-of-this-name/model", "--data", str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert "got ~no-user-of-this-name/model" in done.stderr


_MAIN = "from detex_client.cli import main; main()"


def _command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", _MAIN, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
