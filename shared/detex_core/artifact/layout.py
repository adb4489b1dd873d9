"""Where the files of concepts lie in an object store: `concepts/<tenant>/<name>/<version>/<file>`."""

import re
from dataclasses import dataclass

from detex_core.artifact.manifest import CONCEPT_VERSION
from detex_core.errors import invalid_input
from detex_core.prompt import CONCEPT_NAME, CONCEPT_NAMES
from detex_core.tenancy import TENANT_NAME, checked_tenant

MANIFEST_FILE = "manifest.json"

_MANIFEST_KEY = re.compile(
    rf"concepts/({TENANT_NAME.pattern})/({CONCEPT_NAME.pattern})/({CONCEPT_VERSION.pattern})/manifest\.json"
)


@dataclass(frozen=True, order=True)
class ConceptReference:
    """Names one version of a concept of a tenant known from elsewhere."""

    name: str
    version: str


def tenant_prefix(tenant: str) -> str:
    """What the keys of all concepts of a tenant begin with."""
    return f"concepts/{tenant}/"


def concept_prefix(tenant: str, name: str) -> str:
    """What the keys of all versions of a concept begin with."""
    return f"concepts/{tenant}/{name}/"


def file_key(tenant: str, reference: ConceptReference, file_name: str) -> str:
    """Key of one file of a concept."""
    return f"concepts/{tenant}/{reference.name}/{reference.version}/{file_name}"


def manifest_reference(key: str) -> ConceptReference | None:
    """The version whose manifest lies at `key`; None where the key is none of a manifest."""
    match = _MANIFEST_KEY.fullmatch(key)
    return ConceptReference(match[2], match[3]) if match else None


def check_reference(tenant: str, name: str, version: str, field: str) -> None:
    """Raise InvalidInputError where tenant, name or version (may be empty) is malformed; `field` is the reference."""
    checked_tenant(tenant, field="tenant")
    if not CONCEPT_NAMES.is_name(name):
        raise invalid_input(f"{field}.name", CONCEPT_NAMES.given(name), CONCEPT_NAMES.accepted)
    if version and not CONCEPT_VERSION.fullmatch(version):
        accepted = "a published version such as 20260131T120000Z-0a1b2c3d, or empty for the newest"
        raise invalid_input(f"{field}.version", repr(version), accepted)
