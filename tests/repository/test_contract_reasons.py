"""Reasons of failures: each that a service can give is said in the protos, and none that it cannot."""

import ast
import re
from pathlib import Path

import pytest

from tests.repository.contract_comments import contract_comments

ROOT = Path(__file__).resolve().parents[2]
_REASON = re.compile(r"`([A-Z]{2,}(?:_[A-Z]+)*)`")

# What ends a service when it starts, or only ever reaches its operator.
_OF_STARTS = {
    "ACCESS_POLICY_UNUSABLE",
    "ADDRESS_UNUSABLE",
    "AUDIT_LOG_BROKEN",
    "AUDIT_LOG_UNUSABLE",
    "BASE_MODEL_DOES_NOT_FIT",
    "CERTIFICATE_UNUSABLE",
    "INSECURE",
    "KERNEL_UNAVAILABLE",
    "NO_HOME",
    "TRACING_UNAVAILABLE",
}


@pytest.mark.parametrize("service", ["generator", "trainer"])
def test_every_reason_that_can_come_is_said(service: str) -> None:
    """Of the service itself and of what both share."""
    comments = " ".join(contract_comments().values())
    raised = _reasons(ROOT / "services" / service, ROOT / "shared" / "detex_core", ROOT / "shared" / "detex_diffusion")
    assert {"QUEUE_FULL", "STORAGE_FULL", "INVALID_INPUT", "STORE_ABSENT"} <= raised
    said = set(_REASON.findall(comments))
    statuses = set(re.findall(r"\b[A-Z_]{5,}\b", contract_comments()["common.proto"]))
    assert sorted(raised - said - statuses - _OF_STARTS) == []


def test_no_reason_is_said_that_no_code_gives() -> None:
    given = _reasons(ROOT / "services", ROOT / "shared")
    said = {reason for comment in contract_comments().values() for reason in _REASON.findall(comment)}
    assert len(said) > 40
    assert sorted(said - given) == []


def _reasons(*folders: Path) -> set[str]:
    """Reasons that errors and failures are given: `reason=` of calls and classes, where they are texts or constants."""
    trees = [ast.parse(path.read_text()) for folder in folders for path in sorted(folder.rglob("*.py"))]
    constants = {
        target.id: node.value.value
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found: set[object] = set()
    for node in (each for tree in trees for each in ast.walk(tree)):
        match node:
            case ast.keyword(arg="reason", value=value) | ast.Assign(targets=[ast.Name(id="reason")], value=value):
                texts = [each for each in ast.walk(value) if isinstance(each, ast.Constant | ast.Name)]
                found |= {constants.get(each.id) if isinstance(each, ast.Name) else each.value for each in texts}
            case ast.Call(func=ast.Name(id="JobFailure"), args=[ast.Constant(value=text), *_]):
                found.add(text)
            case ast.Call(func=ast.Name(id="JobFailure"), args=[ast.Name(id=name), *_]):
                found.add(constants.get(name))
    return {each for each in found if isinstance(each, str) and re.fullmatch(r"[A-Z]{2,}(_[A-Z]+)*", each)}
