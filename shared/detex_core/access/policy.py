"""The policy file: whose tokens are believed, and which tenant and roles a caller has."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from detex_core.access.roles import Role
from detex_core.channel import is_on_this_machine
from detex_core.errors import FailedPreconditionError
from detex_core.tenancy import TENANT_NAME

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures by a private key alone: whoever can check a token must not be able to make one."""

_Line = Annotated[str, StringConstraints(min_length=1, max_length=1_000, pattern=r"^[^\x00-\x1f\x7f]+$")]
_MOST_BYTES = 1_000_000


class Issuer(BaseModel):
    """Who signs tokens.

    Attributes:
        issuer: As the claim `iss` has it.
        audience: What the claim `aud` must contain.
        keys_file: Its public keys as a JSON Web Key Set (RFC 7517); read again when the file changes.
        keys_url: The same behind an https URL; read again when a key is unknown, and every `keys_seconds`.
        keys_seconds: How long keys of a URL are kept.
        algorithms: Signatures that are accepted.
        leeway_seconds: How far clocks may be apart.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuer: _Line
    audience: _Line
    keys_file: Path | None = None
    keys_url: _Line | None = None
    keys_seconds: float = Field(default=300.0, ge=10, le=86_400)
    algorithms: tuple[Algorithm, ...] = Field(default=("RS256", "PS256", "ES256", "EdDSA"), min_length=1)
    leeway_seconds: float = Field(default=30.0, ge=0, le=300)

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if (self.keys_file is None) == (self.keys_url is None):
            raise ValueError("give keys_file or keys_url, and not both")
        if self.keys_url is not None:
            scheme = urlsplit(self.keys_url).scheme
            if scheme != "https" and not (scheme == "http" and is_on_this_machine(self.keys_url)):
                raise ValueError("keys_url must be https, or http to this machine")
        return self


class CallerRule(BaseModel):
    """A caller, or a group of callers, and what it may do.

    Attributes:
        name: For logs.
        issuer: Of its tokens.
        subject: The claim `sub` of its tokens; every subject where absent.
        claims: Further claims that its tokens must have: the value itself, or a list that contains it.
        certificate: Name in its client certificate: a DNS name, a URI or the common name.
        tenant: Whose concepts and jobs.
        roles: What it may do.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: _Line
    issuer: _Line | None = None
    subject: _Line | None = None
    claims: Mapping[str, str | int | bool] = Field(default_factory=dict)
    certificate: _Line | None = None
    tenant: str = Field(pattern=TENANT_NAME)
    roles: frozenset[Role] = Field(min_length=1)

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if (self.issuer is None) == (self.certificate is None):
            raise ValueError("give issuer or certificate, and not both")
        if self.certificate is not None and (self.subject is not None or self.claims):
            raise ValueError("subject and claims are of tokens; a caller with a certificate has none")
        if self.issuer is not None and self.subject is None and not self.claims:
            raise ValueError("give subject or claims, or everybody with a token of the issuer is this caller")
        return self

    def is_of_token(self, claims: Mapping[str, Any]) -> bool:
        """Whether a token with these claims, which have been verified, is this caller's."""
        if self.issuer is None or claims.get("iss") != self.issuer:
            return False
        if self.subject is not None and claims.get("sub") != self.subject:
            return False
        return all(_has(claims.get(name), wanted) for name, wanted in self.claims.items())

    def is_of_certificate(self, names: Sequence[str]) -> bool:
        """Whether a certificate with these names, which has been verified, is this caller's."""
        return self.certificate is not None and self.certificate in names

    def may(self, role: Role) -> bool:
        """Whether it may do what needs a role."""
        return role in self.roles or Role.ADMIN in self.roles


class AccessPolicy(BaseModel):
    """Who may call, and what for.

    Attributes:
        issuers: Whose tokens are believed.
        callers: Looked through in their order; the first that fits counts.
        health: Who may ask for health: anybody (`public`), as probes do, or `callers` alone.
        reflection: Who may ask which methods there are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    issuers: tuple[Issuer, ...] = ()
    callers: tuple[CallerRule, ...] = Field(min_length=1)
    health: Literal["public", "callers"] = "public"
    reflection: Literal["public", "callers"] = "callers"

    @model_validator(mode="after")
    def _check_issuers(self) -> Self:
        known = [issuer.issuer for issuer in self.issuers]
        if len(set(known)) != len(known):
            raise ValueError("issuers: each issuer must be there once")
        for index, caller in enumerate(self.callers):
            if caller.issuer is not None and caller.issuer not in known:
                raise ValueError(f"callers.{index}.issuer: must be one of issuers, got {caller.issuer!r}")
        return self


def load_policy(path: Path) -> AccessPolicy:
    """Read a policy file, YAML or JSON.

    Raises:
        FailedPreconditionError: It cannot be read, or says what a policy cannot; every fault is named by its path.
    """
    try:
        data = path.read_bytes()
        if len(data) > _MOST_BYTES:
            raise _unusable(path, f"it has {len(data):,} bytes; at most {_MOST_BYTES:,} are read")
        content = yaml.safe_load(data)
    except OSError as error:
        raise _unusable(path, f"it cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        place = getattr(error, "problem_mark", None)
        where = "" if place is None else f" in line {place.line + 1}"
        raise _unusable(path, f"it is neither YAML nor JSON{where}") from None
    try:
        return AccessPolicy.model_validate(content)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors()]
        raise _unusable(path, "; ".join(faults)) from None


def _unusable(path: Path, why: str) -> FailedPreconditionError:
    return FailedPreconditionError(f"access_policy_file: {path}: {why}.", reason="ACCESS_POLICY_UNUSABLE")


def _has(value: object, wanted: str | int | bool) -> bool:
    if isinstance(value, list):
        return any(type(each) is type(wanted) and each == wanted for each in value)
    return type(value) is type(wanted) and value == wanted
