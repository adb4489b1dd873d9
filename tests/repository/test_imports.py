"""Imports point one way, and the rule that says so is seen to bite."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def lint_imports(root: Path, search_path: list[Path]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--config", str(root / "pyproject.toml"), "--no-cache"],
        cwd=search_path[0],
        env={"PYTHONPATH": ":".join(map(str, search_path)), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_imports_point_one_way(root: Path) -> None:
    done = lint_imports(root, [root])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("shared/detex_core", "torch"),
        ("shared/detex_client", "detex_trainer"),
        ("services/generator/detex_generator", "detex_trainer"),
        ("shared/detex_diffusion", "detex_client"),
        ("shared/detex_client", "detex_catalog"),
        ("services/catalog/detex_catalog", "detex_generator"),
        ("services/catalog/detex_catalog", "torch"),
    ],
)
def test_a_wrong_import_is_found(root: Path, tmp_path: Path, package: str, forbidden: str) -> None:
    for source in ("shared", "services"):
        shutil.copytree(root / source, tmp_path / source, ignore=lambda _, names: [n for n in names if not keep(n)])
    shutil.copy(root / "pyproject.toml", tmp_path)
    (tmp_path / package / "intruder.py").write_text(f"import {forbidden}\n")
    services = sorted((tmp_path / "services").iterdir())
    folders = [tmp_path / "shared", *services]
    done = lint_imports(tmp_path, folders)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{Path(package).name}.intruder -> {forbidden}" in done.stdout


def keep(name: str) -> bool:
    """Python and folders; not the weights."""
    return name.endswith(".py") or ("." not in name and name != "__pycache__")
