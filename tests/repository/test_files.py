"""What may and may not lie in the repository."""

import re
import stat
from pathlib import Path
from typing import Any

import yaml

LONGEST_MODULE_LINES = 500
LARGEST_TREE_BYTES = 45_000_000

# Put together here, so that this file does not hold what it forbids.
REGISTRY_HOSTS = [".".join(host) for host in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"))]
REGISTRY_HOSTS.append(".".join(("download", "pytorch", "org")))
HOME_FOLDER = re.compile(r"(?<![\w.~$}/-])/(?:root|home/\w+|Users/\w+)/")
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX)\b|raise NotImplementedError")
CONFLICT = re.compile(r"^(?:<{7} |={7}$|>{7} )", re.MULTILINE)


def texts(root: Path, tracked: list[Path]) -> list[tuple[Path, str]]:
    """Tracked files that are text."""
    found = []
    for path in tracked:
        data = (root / path).read_bytes()
        if b"\0" in data[:8192]:
            continue
        try:
            found.append((path, data.decode()))
        except UnicodeDecodeError:
            continue
    return found


def test_modules_are_short(root: Path, tracked: list[Path]) -> None:
    lengths = {
        str(path): len((root / path).read_text().splitlines())
        for path in tracked
        if path.suffix == ".py"
        and path.parts[0] in {"shared", "services", "scripts"}
        and "detex_protos" not in path.parts
    }
    assert lengths
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST_MODULE_LINES} == {}


def test_modules_are_named_by_what_they_hold(tracked: list[Path]) -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
    assert [str(path) for path in tracked if path.suffix == ".py" and vague & {path.stem, *path.parts[:-1]}] == []


def test_tree_is_small(root: Path, tracked: list[Path]) -> None:
    sizes = {path: (root / path).stat().st_size for path in tracked}
    largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:5]
    assert sum(sizes.values()) < LARGEST_TREE_BYTES, {str(path): sizes[path] for path in largest}


def test_no_local_paths_hosts_or_conflicts(root: Path, tracked: list[Path]) -> None:
    found = []
    for path, text in texts(root, tracked):
        found += [f"{path}: {host}" for host in REGISTRY_HOSTS if host in text]
        found += [f"{path}: {match[0]}" for match in HOME_FOLDER.finditer(text)]
        found += [f"{path}: {match[0]}" for match in CONFLICT.finditer(text)]
    assert found == []


def test_nothing_is_left_unfinished(root: Path, tracked: list[Path]) -> None:
    packages = [path for path in tracked if path.suffix == ".py" and path.parts[0] in {"shared", "services", "scripts"}]
    found = [
        f"{path}:{number}: {line.strip()}"
        for path in packages
        if "detex_protos" not in path.parts
        for number, line in enumerate((root / path).read_text().splitlines(), start=1)
        if UNFINISHED.search(line)
    ]
    assert found == []


def test_no_pickles_and_no_lock_files(tracked: list[Path]) -> None:
    unsafe = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".lock"}
    assert [str(path) for path in tracked if path.suffix in unsafe] == []


def test_every_package_is_typed(root: Path, pyproject: dict[str, Any]) -> None:
    packages = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert [name for name in packages if not (root / name / "py.typed").exists()] == []


def test_licence(root: Path, pyproject: dict[str, Any]) -> None:
    lines = [line.strip() for line in (root / "LICENSE").read_text().splitlines() if line.strip()]
    assert lines[:2] == ["Apache License", "Version 2.0, January 2004"]
    assert "END OF TERMS AND CONDITIONS" in lines
    assert pyproject["project"]["license"] == "Apache-2.0"
    assert pyproject["project"]["license-files"] == ["LICENSE"]


def test_citation_names_the_paper(root: Path, pyproject: dict[str, Any]) -> None:
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == pyproject["project"]["license"]
    paper = citation["preferred-citation"]
    assert paper["title"] == "Decoupled Textual Embeddings for Customized Image Generation"
    assert [author["family-names"] for author in paper["authors"]] == ["Cai", "Wei", "Ji", "Bai", "Han", "Zuo"]
    assert paper["year"] == 2024
    assert "AAAI" in paper["collection-title"]
    assert "arXiv:2312.11826" in [identifier["value"] for identifier in paper["identifiers"]]


def test_version_has_one_source(root: Path, pyproject: dict[str, Any], tracked: list[Path]) -> None:
    version = pyproject["project"]["version"]
    import detex_core

    assert detex_core.__version__ == version
    chart = yaml.safe_load((root / "deploy/helm/detex/Chart.yaml").read_text())
    assert chart["appVersion"] == version
    packages = [(path, text) for path, text in texts(root, tracked) if path.parts[0] in {"shared", "services"}]
    assert [str(path) for path, text in packages if f'"{version}"' in text] == []


def test_ci_runs_the_tests(root: Path) -> None:
    script = root / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    lines = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "set -euo pipefail"
    assert lines[-1] == "exec make test"


def test_scripts_can_be_run(root: Path, tracked: list[Path]) -> None:
    scripts = [path for path in tracked if path.suffix == ".sh"]
    assert scripts
    for path in scripts:
        assert (root / path).stat().st_mode & stat.S_IXUSR, path
        text = (root / path).read_text()
        assert text.startswith("#!/usr/bin/env bash\n"), path
        assert "set -euo pipefail" in text, path
