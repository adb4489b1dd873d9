"""The wire contract: well-formed, documented, and shared/detex_protos is what it generates."""

import warnings
from pathlib import Path

import pytest


def test_protos_are_clean(run) -> None:
    run("buf", "lint")


def test_protos_are_formatted(run) -> None:
    run("buf", "format", "--diff", "--exit-code")


def test_an_undocumented_field_is_refused(run, root: Path, tmp_path: Path) -> None:
    """The rule of comments is on: otherwise a clean lint would say little."""
    module = tmp_path / "proto" / "detex" / "v1"
    module.mkdir(parents=True)
    (tmp_path / "buf.yaml").write_text((root / "buf.yaml").read_text())
    (module / "bare.proto").write_text(
        'syntax = "proto3";\npackage detex.v1;\n// A field without a comment.\nmessage Bare {\n  string name = 1;\n}\n'
    )
    assert 'Field "name" should have a non-empty comment' in run("buf", "lint", str(tmp_path), expect=100).stdout


def test_generated_code_is_fresh(run, root: Path, tmp_path: Path) -> None:
    run("python", "scripts/generate_protos.py", str(tmp_path))
    kept = root / "shared" / "detex_protos"

    def contents(folder: Path) -> dict[str, str]:
        return {
            str(path.relative_to(folder)): path.read_text()
            for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }

    fresh, present = contents(tmp_path), contents(kept)
    assert sorted(fresh) == sorted(present)
    stale = [name for name in fresh if fresh[name] != present[name]]
    assert not stale, f"run `make protos`: {stale}"


def test_generated_code_compiles_without_warnings(root: Path) -> None:
    modules = sorted((root / "shared" / "detex_protos").rglob("*.py"))
    assert len(modules) > 6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for module in modules:
            compile(module.read_text(), str(module), "exec")


@pytest.mark.parametrize("service", ["TrainerService", "GeneratorService"])
def test_every_method_has_a_servicer_of_the_contract(service: str) -> None:
    from detex_protos.v1 import generator_pb2, trainer_pb2

    module = trainer_pb2 if service == "TrainerService" else generator_pb2
    methods = module.DESCRIPTOR.services_by_name[service].methods
    assert methods
    for method in methods:
        assert method.input_type.name == f"{method.name}Request"
        assert method.output_type.name == f"{method.name}Response"
