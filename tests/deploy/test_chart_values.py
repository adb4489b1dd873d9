"""Values: all of them documented and described by the schema; wrong ones refused with a sentence that says which."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import generate_reference


@pytest.fixture(scope="module")
def schema(chart: Path) -> dict[str, Any]:
    return dict(json.loads((chart / "values.schema.json").read_text()))


@pytest.fixture(scope="module")
def values(chart: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((chart / "values.yaml").read_text()))


def resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    return schema["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node


def objects(node: Any, path: str = "values") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of an object, wherever it stands."""
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield path, node
        for key, value in node.items():
            yield from objects(value, f"{path}.{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from objects(value, f"{path}.{number}")


def test_documents_are_fresh() -> None:
    stale = [path for path, text in generate_reference.documents().items() if path.read_text() != text]
    assert not stale, "run `make reference`"


def test_schema_is_closed_at_every_level(schema: dict[str, Any]) -> None:
    found = dict(objects(schema))
    assert len(found) > 30
    for path, node in found.items():
        if path == "values.properties.global":  # helm itself writes there
            continue
        beyond = node.get("additionalProperties")
        assert beyond is False or (isinstance(beyond, dict) and beyond), path


def test_schema_and_values_have_the_same_keys(schema: dict[str, Any], values: dict[str, Any]) -> None:
    def compare(node: dict[str, Any], part: dict[str, Any], path: str) -> None:
        properties = resolved(node, schema)["properties"]
        if path.endswith(("settings", "resources")):
            assert set(part) <= set(properties), path
            return
        assert set(part) == set(properties) - {"global"}, path
        for key, value in part.items():
            inner = resolved(properties[key], schema)
            if isinstance(value, dict) and "properties" in inner:
                compare(inner, value, f"{path}.{key}")

    compare(schema, values, "values")


def test_every_value_is_explained(chart: Path) -> None:
    lines = (chart / "values.yaml").read_text().splitlines()
    composed = yaml.compose("\n".join(lines))
    paths = {
        path: generate_reference.comment_above(lines, key.start_mark.line)
        for path, key, _ in generate_reference.leaves(composed)
    }
    assert len(paths) > 80
    assert [path for path, comment in paths.items() if not comment.endswith(".")] == []


def test_readme_lists_every_value_and_setting(chart: Path, values: dict[str, Any]) -> None:
    text = (chart / "README.md").read_text()
    for path in ("generator.autoscaling.maxReplicas", "settings.drainGraceSeconds", "trainer.settings.workerCount"):
        assert f"| `{path}` |" in text
    for key in values:
        assert f"`{key}" in text


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("traner", {}, "traner"),
        ("trainer.replica", 1, "replica"),
        ("trainer.settings.workerCuont", 1, "workerCuont"),
        ("trainer.settings.slots", 1, "slots"),
        ("generator.settings.workerCount", 1, "workerCount"),
        ("settings.listenAddress", "0.0.0.0:1", "listenAddress"),
        ("objectStore.accessKey", "AKIA", "accessKey"),
        ("objectStore.secretKey", "secret", "secretKey"),
        ("postgresql.password", "secret", "password"),
        ("trainer.resources.limit", {"memory": "1Gi"}, "limit"),
        ("generator.tolerations", [{"keys": "x"}], "keys"),
        ("networkPolicy.clients", [{"podSelectors": {}}], "podSelectors"),
        ("settings.baseModels", [{"name": "a", "source": "embedded", "steps": 3}], "steps"),
    ],
)
def test_unknown_keys_are_refused(refusal, path: str, value: Any, said: str) -> None:
    sentence = refusal(**{path: json.dumps(value)})
    assert "additional propert" in sentence.lower()
    assert f"'{said}'" in sentence


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("trainer.replicas", "one"),
        ("trainer.replicas", 1.5),
        ("generator.replicas", -1),
        ("generator.gpu.count", "1"),
        ("generator.gpu.resourceName", "gpu"),
        ("generator.service.port", 0),
        ("generator.service.port", 65536),
        ("generator.service.type", "Loadbalancer"),
        ("trainer.image.tag", "a b"),
        ("trainer.image.repository", ""),
        ("trainer.image.digest", "sha256:0f"),
        ("trainer.image.pullPolicy", "Sometimes"),
        ("trainer.persistence.size", "10 GB"),
        ("trainer.resources", {"limits": {"memory": "8GB"}}),
        ("trainer.podAnnotations", {"a": 1}),
        ("trainer.nodeSelector", {"gpu": True}),
        ("metrics.port", 50051),
        ("metrics.serviceMonitor.interval", "15"),
        ("minio.enabled", "yes"),
        ("objectStore.bucket", "Has_Capitals"),
        ("objectStore.endpoint", "https://s3.example.com"),
        ("objectStore.endpoint", "user:secret@s3.example.com"),
        ("objectStore.existingSecret", ""),
        ("objectStore.settings", {"partSizeBytes": 1024}),
        ("database.kind", "mysql"),
        ("settings.logLevel", "TRACE"),
        ("settings.drainGraceSeconds", -1),
        ("settings.dtype", "float8"),
        ("settings.baseModels", []),
        ("settings.baseModels", [{"name": "a"}]),
        ("settings.baseModels", [{"name": "a", "source": "embedded", "defaultSteps": 0}]),
        ("generator.settings.slots", 0),
        ("generator.settings.slots", 2.5),
        ("trainer.settings.workerStopGraceSeconds", 0),
        ("generator.autoscaling.minReplicas", 0),
        ("generator.podDisruptionBudget.maxUnavailable", "half"),
        ("generator.topologySpread.whenUnsatisfiable", "Never"),
        ("networkPolicy.clients", [{}]),
        ("imagePullSecrets", ["registry-credentials"]),
    ],
)
def test_wrong_values_are_refused(refusal, path: str, value: Any) -> None:
    sentence = refusal(**{path: json.dumps(value)})
    assert "values don't meet the specifications of the schema" in sentence
    assert path.replace(".", "/").split("/")[-1] in sentence


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"minio.enabled": False}, "objectStore.endpoint: must be host:port of an S3 server"),
        (
            {"objectStore.endpoint": "s3.example.com"},
            "objectStore.endpoint: must be empty with minio.enabled: true, got s3.example.com",
        ),
        ({"trainer.replicas": 2}, "trainer.replicas: must be 0 or 1 with database.kind: sqlite, got 2"),
        ({"postgresql.enabled": True}, "database.kind: must be postgresql with postgresql.enabled"),
        ({"database.existingSecret": "db"}, "database.kind: must be postgresql with postgresql.enabled"),
        ({"database.kind": "postgresql"}, "database.existingSecret: must be a Secret"),
        (
            {"database.kind": "postgresql", "database.existingSecret": "db", "postgresql.enabled": True},
            "database.existingSecret: must be empty with postgresql.enabled: true",
        ),
        (
            {
                "database": {"kind": "postgresql", "existingSecret": "db"},
                "trainer.replicas": 2,
                "trainer.persistence.existingClaim": "one",
            },
            "trainer.persistence.existingClaim: must be empty with 2 replicas, got one",
        ),
        (
            {"generator.rollout": {"maxSurge": 0, "maxUnavailable": "0%"}},
            "generator.rollout: must have maxSurge or maxUnavailable above 0",
        ),
        ({"generator.service": {"headless": True, "type": "NodePort"}}, "generator.service.headless: must be false"),
        (
            {"generator.autoscaling": {"enabled": True, "minReplicas": 9}},
            "generator.autoscaling.minReplicas: must be at most maxReplicas (8), got 9",
        ),
        (
            {"generator.autoscaling": {"enabled": True, "targetCpuUtilizationPercent": 0}},
            "generator.autoscaling: must have a target",
        ),
        ({"trainer.serviceAccount.create": False}, "trainer.serviceAccount.name: must be the name"),
    ],
)
def test_values_that_do_not_go_together_are_refused(refusal, values: dict[str, Any], said: str) -> None:
    assert said in refusal(**{path: json.dumps(value) for path, value in values.items()})


def test_lint_refuses_what_template_refuses(helm, chart: Path) -> None:
    done = helm("lint", "--strict", str(chart), "--set", "trainer.replica=1")
    assert done.returncode != 0
    assert "additional propert" in (done.stdout + done.stderr).lower()
