"""The Dockerfiles, as far as they can be tested without an engine: their rules, and that what they name exists."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

SERVICES = ("generator", "trainer")


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def dockerfile(root: Path, service: str) -> Path:
    return root / "deploy" / "images" / service / "Dockerfile"


@pytest.fixture
def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """(instruction, rest) in order, without comments, with continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def last_stage(instructions: list[tuple[str, str]]) -> list[tuple[str, str]]:
    start = max(number for number, (name, _) in enumerate(instructions) if name == "FROM")
    return instructions[start:]


def value(instructions: list[tuple[str, str]], wanted: str) -> str:
    (found,) = (rest for name, rest in instructions if name == wanted)
    return found


def test_hadolint_finds_nothing(root: Path, dockerfile: Path) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "hadolint"), str(dockerfile)], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_hadolint_is_awake(root: Path, tmp_path: Path) -> None:
    """With the project's configuration it still finds what it should."""
    (tmp_path / "Dockerfile").write_text("FROM debian\nRUN cd /tmp\nCMD sleep 1\n")
    done = subprocess.run(
        [str(Path(sys.executable).parent / "hadolint"), str(tmp_path / "Dockerfile")],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert {"DL3006", "DL3003", "DL3025"} <= set(re.findall(r"DL\d+", done.stdout))


def test_base_image_is_pinned(instructions: list[tuple[str, str]], pyproject: dict[str, Any]) -> None:
    base = dict(rest.split("=", 1) for name, rest in instructions if name == "ARG" and "=" in rest)["PYTHON_IMAGE"]
    version = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-[a-z]+", base)
    assert version, base
    least = re.search(r"(\d+)\.(\d+)", pyproject["project"]["requires-python"])
    assert least
    assert (int(version[1]), int(version[2])) >= (int(least[1]), int(least[2]))
    assert {rest.split()[0] for name, rest in instructions if name == "FROM"} == {"${PYTHON_IMAGE}"}


def test_runs_as_a_numeric_user_who_is_not_root(
    instructions: list[tuple[str, str]], render, find, service: str
) -> None:
    user, group = value(last_stage(instructions), "USER").split(":")
    assert int(user) > 0
    pod = find(render(), "Deployment", f"-{service}")["spec"]["template"]["spec"]
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]) == (int(user), int(group))


def test_starts_the_service_without_a_shell(instructions: list[tuple[str, str]], service: str) -> None:
    entry = json.loads(value(instructions, "ENTRYPOINT"))
    assert entry == ["python", "-m", f"detex_{service}"]
    assert find_spec(f"detex_{service}.__main__"), f"python -m detex_{service} starts nothing"
    assert "CMD" not in {name for name, _ in instructions}
    assert value(instructions, "STOPSIGNAL") == "SIGTERM"


def test_folder_and_ports_are_those_of_the_chart(
    instructions: list[tuple[str, str]], render, find, service: str
) -> None:
    (container,) = find(render(), "Deployment", f"-{service}")["spec"]["template"]["spec"]["containers"]
    exposed = {int(port) for port in value(instructions, "EXPOSE").split()}
    assert exposed == {port["containerPort"] for port in container["ports"]}
    (folder,) = json.loads(value(instructions, "VOLUME"))
    assert folder in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert find(render(), "ConfigMap", f"-{service}")["data"]["DETEX_WORK_FOLDER"] == folder
    assert f"HOME={folder}" in shlex.split(value(last_stage(instructions), "ENV"))


def test_extras_exist(dockerfile: Path, pyproject: dict[str, Any]) -> None:
    (extras,) = re.findall(r"\$\{wheels\[0\]\}\[([a-z,]+)\]", dockerfile.read_text())
    assert set(extras.split(",")) <= set(pyproject["project"]["optional-dependencies"])
    assert dockerfile.parent.name in extras.split(",")


def test_torch_is_the_tested_one(root: Path, instructions: list[tuple[str, str]]) -> None:
    arguments = dict(rest.split("=", 1) for name, rest in instructions if name == "ARG" and "=" in rest)
    (tested,) = re.findall(r"^TORCH \?= torch==(\S+)$", (root / "Makefile").read_text(), re.MULTILINE)
    assert arguments["TORCH_VERSION"] == tested
    assert arguments["TORCH_INDEX_URL"] == '""'
    bounds = {one.specifier for one in map(Requirement, requires("detex") or []) if one.name == "torch"}
    assert bounds
    assert all(tested in bound for bound in bounds)


def test_copied_paths_reach_the_build(root: Path, instructions: list[tuple[str, str]]) -> None:
    admitted = {line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [rest.split()[:-1] for name, rest in instructions if name == "COPY" and not rest.startswith("--from=")]
    sources = {source for group in copied for source in group}
    assert sources == admitted
    assert [source for source in sources if not (root / source).exists()] == []


@pytest.fixture(scope="module")
def pyproject(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel as the first stage builds it, from the files that reach the build and no others."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for line in (root / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            (source / line[1:]).symlink_to(root / line[1:])
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("detex-*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_every_package(wheel: zipfile.ZipFile, pyproject: dict[str, Any]) -> None:
    names = wheel.namelist()
    for package in pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        name = Path(package).name
        assert f"{name}/__init__.py" in names
        assert f"{name}/py.typed" in names
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests")]


def test_wheel_holds_the_data_of_the_packages(wheel: zipfile.ZipFile, root: Path) -> None:
    shipped = {name for name in wheel.namelist() if name.startswith("detex_showroom/")}
    folder = root / "shared"
    present = {
        str(path.relative_to(folder))
        for path in (folder / "detex_showroom").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert shipped == present


def test_wheel_offers_the_commands(wheel: zipfile.ZipFile, pyproject: dict[str, Any]) -> None:
    (entry,) = (name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt"))
    text = wheel.read(entry).decode()
    for command, target in pyproject["project"]["scripts"].items():
        assert f"{command} = {target}" in text
        module, _, function = target.partition(":")
        spec = find_spec(module)
        assert spec, target
        assert spec.origin
        assert re.search(rf"^(?:def {function}\(|{function} = )", Path(spec.origin).read_text(), re.MULTILINE), target
