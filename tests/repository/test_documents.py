"""What the documents promise: their commands exist, their links lead somewhere, both languages say the same."""

import ast
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)")
MODULE_ROW = re.compile(r"^\| `([a-z_]+)/?`", re.MULTILINE)


def fenced(text: str) -> list[tuple[str, str]]:
    """(language, body) of each code block."""
    return [(match["language"], match["body"]) for match in FENCE.finditer(text)]


def commands(text: str, program: str) -> list[list[str]]:
    """Command lines of `program` in the shell blocks, as words, without comments and prompts."""
    lines = [
        line.removeprefix("$ ")
        for language, body in fenced(text)
        if language in {"", "bash", "console", "sh", "shell"}
        for line in body.replace("\\\n", " ").splitlines()
    ]
    split = [shlex.split(line, comments=True) for line in lines if line.split(" ", 1)[0] == program]
    assert all(split)
    return split


@pytest.fixture(scope="module")
def readmes(root: Path) -> dict[str, str]:
    return {name: (root / name).read_text() for name in ("README.md", "README.ja.md")}


def test_make_targets_exist(run, readmes: dict[str, str], root: Path) -> None:
    texts = [*readmes.values(), (root / "CONTRIBUTING.md").read_text(), (root / "docs/operations.md").read_text()]
    targets = {word for text in texts for command in commands(text, "make") for word in command[1:] if "=" not in word}
    assert {"demo", "test"} <= targets
    for target in targets:
        run("make", "--dry-run", target)


def test_unknown_targets_are_refused(run) -> None:
    """Otherwise the test above would say little."""
    assert "No rule to make target" in run("make", "--dry-run", "no-such-target", expect=2).stderr


def test_detex_commands_exist(run, readmes: dict[str, str]) -> None:
    used = {tuple(command[1:]) for text in readmes.values() for command in commands(text, "detex")}
    assert {"generate", "train"} <= {words[0] for words in used}
    for words in used:
        path = [words[0]]
        help_text = run("detex", *path, "--help").stdout
        for word in words[1:]:  # a group of commands, such as `jobs`: go on as far as words name commands
            if not re.search(rf"^[│\s]+{re.escape(word)}\s", help_text, re.MULTILINE) or word.startswith("-"):
                break
            path.append(word)
            help_text = run("detex", *path, "--help").stdout
        for option in (word.split("=")[0] for word in words if word.startswith("-")):
            assert option in help_text, f"detex {' '.join(path)} has no option {option}"


def test_both_readmes_have_the_same_parts(readmes: dict[str, str]) -> None:
    def structure(text: str) -> list[Any]:
        plain = FENCE.sub("", text)
        return re.findall(r"^(#+) ", plain, re.MULTILINE)

    english, japanese = readmes.values()
    assert structure(english) == structure(japanese)
    assert fenced(english) == fenced(japanese)
    assert re.search(r"[\u3040-\u30ff]", japanese), "README.ja.md is not in Japanese"


def test_python_and_json_blocks_parse(root: Path, tracked: list[Path]) -> None:
    for path in (path for path in tracked if path.suffix == ".md"):
        for language, body in fenced((root / path).read_text()):
            if language == "python":
                ast.parse(body, filename=str(path))
            elif language == "json":
                json.loads(body)


def test_links_lead_to_files(root: Path, tracked: list[Path]) -> None:
    broken = [
        f"{path}: {target}"
        for path in tracked
        if path.suffix == ".md"
        for target in LINK.findall((root / path).read_text())
        if not (root / path.parent / target).exists()
    ]
    assert not broken


def test_architecture_names_every_package(root: Path, pyproject: dict[str, Any]) -> None:
    text = (root / "docs/architecture.md").read_text()
    packages = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert [package for package in packages if f"`{package}`" not in text] == []


@pytest.mark.parametrize(
    "package",
    [
        "shared/detex_core",
        "shared/detex_diffusion",
        "services/trainer/detex_trainer",
        "services/generator/detex_generator",
        "services/catalog/detex_catalog",
    ],
)
def test_architecture_names_modules_that_exist(root: Path, package: str) -> None:
    text = (root / "docs/architecture.md").read_text()
    section = re.search(
        rf"^`{Path(package).name}`[^\n]*\n\n(\| module.*?)\n\n", text + "\n\n", re.MULTILINE | re.DOTALL
    )
    assert section, f"no table of modules for {package}"
    modules = MODULE_ROW.findall(section[1])
    assert modules
    missing = [name for name in modules if not any((root / package / f"{name}{end}").exists() for end in (".py", ""))]
    assert not missing
