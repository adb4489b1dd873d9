"""The CronJob of catalog runs and its image: what it starts is a command that there is."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from detex_catalog.cli import catalog
from detex_catalog.exit_codes import ExitCode
from detex_catalog.sharding import Shard, parse_shard


@pytest.fixture
def cron_job(render, find) -> dict[str, Any]:
    return dict(find(render("production-values.yaml"), "CronJob")["spec"])


@pytest.fixture
def container(cron_job: dict[str, Any]) -> dict[str, Any]:
    (found,) = cron_job["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_there_is_none_unless_asked_for(render, refusal) -> None:
    kinds = {manifest["kind"] for manifest in render()}
    assert "CronJob" not in kinds
    assert "catalog.existingClaim: must be a claim" in refusal(**{"catalog.enabled": "true"})


def test_runs_do_not_overlap_and_share_the_work(
    cron_job: dict[str, Any], container: dict[str, Any], monkeypatch
) -> None:
    assert cron_job["concurrencyPolicy"] == "Forbid"
    assert (cron_job["schedule"], cron_job["timeZone"]) == ("30 1 * * MON-FRI", "Asia/Tokyo")
    job = cron_job["jobTemplate"]["spec"]
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 4, 4)
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    assert parse_shard(variables["DETEX_CATALOG_SHARD"]) == Shard(3, 4)
    assert variables["DETEX_TENANT"] == "shop"


def test_a_table_at_fault_is_not_tried_again(cron_job: dict[str, Any], container: dict[str, Any]) -> None:
    rules = cron_job["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    (rule,) = (rule for rule in rules if rule["action"] == "FailJob")
    assert rule["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "In",
        "values": [int(ExitCode.INPUT_AT_FAULT)],
    }
    assert cron_job["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_addresses_are_those_of_the_services(render, find, container: dict[str, Any]) -> None:
    manifests = render("production-values.yaml")
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    for component in ("trainer", "generator"):
        service = find(manifests, "Service", f"-{component}")
        (port,) = service["spec"]["ports"]
        wanted = f"{service['metadata']['name']}:{port['port']}"
        assert variables[f"DETEX_{component.upper()}_ADDRESS"] == wanted


def test_the_command_line_is_understood(container: dict[str, Any]) -> None:
    """All arguments are options of the command; the table lies on the volume."""
    name, file, *options = container["args"]
    command = get_command(catalog).commands[name]  # type: ignore[attr-defined]
    context = command.make_context(name, [file, *options])
    assert context.params["file"] == Path("/catalog/spring/products.parquet")
    assert context.params["out"] == Path("/catalog/out")
    assert context.params["review_is_good"] is True
    assert (context.params["max_redraws"], context.params["streams"]) == (5, 4)
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["catalog"] == "/catalog"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("catalog.schedule", "every night"),
        ("catalog.shards", 0),
        ("catalog.file", "/etc/passwd"),
        ("catalog.file", "products.xlsx"),
        ("catalog.tenant", "Shop"),
        ("catalog.arguments", "--json"),
        ("catalog.timezone", "Asia/Tokyo"),
    ],
)
def test_wrong_values_are_refused(refusal, path: str, value: Any) -> None:
    sentence = refusal(**{path: json.dumps(value)})
    assert "values don't meet the specifications of the schema" in sentence


@pytest.fixture(scope="module")
def dockerfile(root: Path) -> Path:
    return root / "deploy/images/catalog/Dockerfile"


def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [hadolint, dockerfile], cwd=dockerfile.parents[3], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_image_starts_the_command_as_the_chart_s_user(
    dockerfile: Path, cron_job: dict[str, Any], root: Path
) -> None:
    text = dockerfile.read_text()
    assert json.loads(re.findall(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)[0]) == ["python", "-m", "detex_catalog"]
    assert find_spec("detex_catalog.__main__")
    security = cron_job["jobTemplate"]["spec"]["template"]["spec"]["securityContext"]
    assert f"USER {security['runAsUser']}:{security['runAsGroup']}" in text
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert re.findall(r"\$\{wheels\[0\]\}\[([a-z,]+)\]", text) == ["catalog"]
    assert not [name for name in (*extras["catalog"], *extras["client"]) if "torch" in name or "diffusion" in name]
    others = (root / "deploy/images/generator/Dockerfile").read_text()
    assert re.findall(r"PYTHON_IMAGE=(\S+)", text) == re.findall(r"PYTHON_IMAGE=(\S+)", others)
