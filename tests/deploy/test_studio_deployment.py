"""The deployment of Studio and its image: off by default, its settings accepted by Studio itself."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from detex_studio.settings import StudioSettings


@pytest.fixture(scope="module")
def manifests(render) -> list[dict[str, Any]]:
    return list(render("production-values.yaml"))


@pytest.fixture(scope="module")
def pod(manifests: list[dict[str, Any]], find) -> dict[str, Any]:
    return dict(find(manifests, "Deployment", "-studio")["spec"]["template"]["spec"])


def test_there_is_none_unless_asked_for(render) -> None:
    assert not [each for each in render() if each["metadata"]["name"].endswith("-studio")]


def test_studio_takes_the_settings_of_the_chart(pod: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = pod["containers"]
    for variable in container["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    settings = StudioSettings()
    assert settings.allowed_hosts == ("studio.example.com",)
    assert settings.tenant == "shop"
    assert settings.max_pictures == 4
    assert settings.listen_address == "0.0.0.0:8080"
    (port,) = container["ports"]
    assert port["containerPort"] == settings.port
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert str(settings.data_folder) in mounts
    assert settings.root_certificates is not None
    assert str(settings.root_certificates.parent) in mounts
    assert str(Path(os.environ["DETEX_TOKEN_FILE"]).parent) in mounts


def test_addresses_are_those_of_the_services(manifests: list[dict[str, Any]], pod: dict[str, Any], find) -> None:
    variables = {variable["name"]: variable["value"] for variable in pod["containers"][0]["env"]}
    for component in ("trainer", "generator"):
        service = find(manifests, "Service", f"-{component}")
        (port,) = service["spec"]["ports"]
        wanted = f"{service['metadata']['name']}:{port['port']}"
        assert variables[f"DETEX_{component.upper()}_ADDRESS"] == wanted


def test_one_pod_has_one_volume_that_outlives_the_release(manifests: list[dict[str, Any]], find) -> None:
    deployment = find(manifests, "Deployment", "-studio")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    claim = find(manifests, "PersistentVolumeClaim", "-studio")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    service = find(manifests, "Service", "-studio")
    assert service["spec"]["type"] == "ClusterIP"


def test_the_policy_lets_studio_call_the_services(manifests: list[dict[str, Any]], find) -> None:
    for component in ("trainer", "generator"):
        policy = find(manifests, "NetworkPolicy", f"-{component}")
        assert '"app.kubernetes.io/component": "studio"' in json.dumps(policy["spec"]["ingress"])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("studio.hosts", ["https://studio.example.com"]),
        ("studio.tenant", "Shop"),
        ("studio.port", 0),
        ("studio.settings", {"maxPictures": 0}),
        ("studio.settings", {"listenAddress": "0.0.0.0:1"}),
    ],
)
def test_wrong_values_are_refused(refusal, path: str, value: Any) -> None:
    assert "values don't meet the specifications of the schema" in refusal(**{path: json.dumps(value)})


def test_the_image_starts_studio_as_the_chart_s_user(root: Path, pod: dict[str, Any]) -> None:
    dockerfile = root / "deploy/images/studio/Dockerfile"
    text = dockerfile.read_text()
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, dockerfile], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert json.loads(re.findall(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)[0]) == ["python", "-m", "detex_studio"]
    assert f"USER {pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" in text
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert re.findall(r"\$\{wheels\[0\]\}\[([a-z,]+)\]", text) == ["studio"]
    assert not [name for name in (*extras["studio"], *extras["client"]) if "torch" in name or "diffusion" in name]
    others = (root / "deploy/images/catalog/Dockerfile").read_text()
    assert re.findall(r"PYTHON_IMAGE=(\S+)", text) == re.findall(r"PYTHON_IMAGE=(\S+)", others)
