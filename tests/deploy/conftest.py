"""The chart as the real helm renders it."""

import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy" / "helm" / "detex"
HELM = ROOT / ".tools" / "bin" / "helm"
EXAMPLES = sorted(path.name for path in (CHART / "ci").glob("*-values.yaml"))

Manifest = dict[str, Any]
Helm = Callable[..., "subprocess.CompletedProcess[str]"]
Render = Callable[..., list[Manifest]]


@cache
def _rendered(options: tuple[str, ...]) -> str:
    done = _helm("template", "shop", str(CHART), "--namespace", "pictures", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _helm(*arguments: str) -> "subprocess.CompletedProcess[str]":
    assert HELM.exists(), "no helm; run `make tools`"
    return subprocess.run([str(HELM), *arguments], capture_output=True, text=True, timeout=60, check=False)


def _options(example: str | None, values: dict[str, str]) -> tuple[str, ...]:
    chosen = ("--values", str(CHART / "ci" / example)) if example else ()
    if example is None and not any(key.startswith("access") for key in values):
        values = {**values, "access.insecure": "true"}
    settings = tuple(part for key, value in values.items() for part in ("--set-json", f"{key}={value}"))
    return (*chosen, *settings)


@pytest.fixture(scope="session")
def chart() -> Path:
    return CHART


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> str:
    """File name of one of the example installations."""
    return str(request.param)


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Runs helm whatever comes of it."""
    return _helm


@pytest.fixture(scope="session")
def render() -> Render:
    """Manifests of an example file, with values given as JSON over it, for example `**{"trainer.replicas": "2"}`."""

    def manifests(example: str | None = None, **values: str) -> list[Manifest]:
        text = _rendered(_options(example, values))
        return [manifest for manifest in yaml.safe_load_all(text) if manifest]

    return manifests


@pytest.fixture(scope="session")
def refusal() -> Callable[..., str]:
    """What helm says against values, given as JSON, that it must refuse."""

    def sentence(**values: str) -> str:
        done = _helm("template", "shop", str(CHART), *_options(None, values))
        assert done.returncode != 0, f"{values} were accepted"
        assert done.stdout == ""
        return done.stderr

    return sentence


@pytest.fixture(scope="session")
def find() -> Callable[..., Manifest]:
    """The one manifest of a kind whose name ends as given."""

    def manifest(manifests: list[Manifest], kind: str, suffix: str = "") -> Manifest:
        (found,) = (one for one in manifests if one["kind"] == kind and one["metadata"]["name"].endswith(suffix))
        return found

    return manifest
