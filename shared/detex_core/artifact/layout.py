"""Where the files of concepts lie in an object store: `concepts/<tenant>/<name>/<version>/<file>`."""

import re
from dataclasses import dataclass

from detex_core.artifact.manifest import CONCEPT_VERSION
from detex_core.errors import invalid_input
from detex_core.prompt import CONCEPT_NAME
from detex_core.tenancy import TENANT_NAME

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
    if not TENANT_NAME.fullmatch(tenant):
        raise invalid_input("tenant", repr(tenant), "1 to 63 of a-z, 0-9 and hyphens, beginning with a letter or digit")
    if not CONCEPT_NAME.fullmatch(name):
        accepted = "1 to 63 of a-z, 0-9 and hyphens, beginning with a letter"
        raise invalid_input(f"{field}.name", repr(name), accepted)
    if version and not CONCEPT_VERSION.fullmatch(version):
        accepted = "a version as published, for example 20260131T120000Z-0a1b2c3d, or nothing for the newest"
        raise invalid_input(f"{field}.version", repr(version), accepted)
