"""Settings of the services, read from the environment (`DETEX_*`), checked when constructed."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, StringConstraints, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from detex_core.errors import FailedPreconditionError, invalid_input
from detex_core.object_store.key import is_key
from detex_core.object_store.location import S3Location, parse_location
from detex_core.settings_text import trimmed

Device = Literal["auto", "cpu", "cuda"]
Dtype = Literal["auto", "float32", "float16", "bfloat16"]

_ADDRESS = r"^(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$"
Address = Annotated[str, StringConstraints(pattern=_ADDRESS)]


def state_folder() -> Path:
    """Where data goes by default: `$XDG_STATE_HOME/detex`, or `~/.local/state/detex`.

    Raises:
        FailedPreconditionError: Neither variable is set, and the system knows no home folder of this user.
    """
    named = os.environ.get("XDG_STATE_HOME")
    try:
        return Path(named or Path.home() / ".local" / "state") / "detex"
    except RuntimeError:
        raise FailedPreconditionError(
            "This user has no home directory: set HOME or XDG_STATE_HOME, or both DETEX_WORK_FOLDER and "
            "DETEX_OBJECT_STORE_URL.",
            reason="NO_HOME",
        ) from None


class ObjectStoreSettings(BaseSettings):
    """Object store.

    Attributes:
        url: `folder:///absolute/path`, or `s3://bucket/prefix?endpoint=host:port&secure=false&region=name`
            (`DETEX_OBJECT_STORE_URL`).
        access_key: Access key of the S3 server (`DETEX_S3_ACCESS_KEY`).
        secret_key: Secret key of the S3 server (`DETEX_S3_SECRET_KEY`).
        connect_timeout_seconds: Timeout for connecting to the S3 server.
        read_timeout_seconds: Timeout for data from the S3 server within a request.
        part_size_bytes: Part size of multipart uploads to the S3 server, and the size above which they are used; S3
            requires at least 5 MiB.
        identity: Expected identity of the store, 32 hex digits; empty for the store that the trainer's jobs belong to,
            or that a generator finds first.
    """

    model_config = SettingsConfigDict(
        env_prefix="DETEX_OBJECT_STORE_", extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True
    )

    url: str = Field(default_factory=lambda: f"folder://{state_folder()}/object_store")
    access_key: SecretStr | None = Field(default=None, validation_alias="DETEX_S3_ACCESS_KEY")
    secret_key: SecretStr | None = Field(default=None, validation_alias="DETEX_S3_SECRET_KEY")
    connect_timeout_seconds: float = Field(default=2.0, gt=0, le=600)
    read_timeout_seconds: float = Field(default=10.0, gt=0, le=600)
    part_size_bytes: int = Field(default=16 * 1024**2, ge=5 * 1024**2, le=5 * 1024**3)
    identity: str = Field(default="", pattern=r"^([0-9a-f]{32})?$")

    @model_validator(mode="before")
    @classmethod
    def _trim(cls, values: Any) -> Any:
        return trimmed(values)

    @field_validator("access_key", "secret_key")
    @classmethod
    def _as_sent(cls, key: SecretStr | None) -> SecretStr | None:
        """Keys as headers carry them: nothing unsendable, and none where the text is empty."""
        if key is None:
            return None
        text = key.get_secret_value()
        if not text.isascii() or not text.isprintable() or " " in text:
            raise ValueError("must be printable ASCII without spaces, got other characters")
        return SecretStr(text) if text else None

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parse_location(url)
        return url

    @model_validator(mode="after")
    def _check_credentials(self) -> Self:
        if isinstance(parse_location(self.url), S3Location) and not (self.access_key and self.secret_key):
            raise ValueError("an s3:// object store needs DETEX_S3_ACCESS_KEY and DETEX_S3_SECRET_KEY")
        return self


class BaseModelSettings(BaseModel):
    """A base model available to a service.

    Attributes:
        name: Name in requests.
        source: `embedded` (the showroom model that comes with detex), the absolute path of a folder in diffusers
            format, `store:<key prefix>` (such a folder in the object store), or `hub:<id>` (only with downloads
            allowed).
        image_encoder_source: The CLIP image encoder, if the folder has none: an absolute path, `store:` or `hub:`.
        default_steps: Denoising steps of requests that set none.
        default_guidance_scale: Guidance scale of requests that set none.
        default_solver: Solver of requests that set none: `ddim`, `euler`, `dpm_solver_pp_2m`, `euler_ancestral`, `lcm`
            or `tcd`; empty selects `lcm` or `tcd` if the folder's scheduler is of that kind, else `dpm_solver_pp_2m`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    source: str
    image_encoder_source: str | None = None
    default_steps: int = Field(default=25, ge=1, le=500)
    default_guidance_scale: float = Field(default=6.0, ge=0, le=50, allow_inf_nan=False)
    default_solver: Literal["", "ddim", "euler", "dpm_solver_pp_2m", "euler_ancestral", "lcm", "tcd"] = ""

    @field_validator("source")
    @classmethod
    def _check_source(cls, source: str) -> str:
        if source != "embedded" and not _is_model_source(source):
            raise ValueError(f"must be embedded, an absolute path, store:<key prefix> or hub:<id>, got {source!r}")
        return source

    @field_validator("image_encoder_source")
    @classmethod
    def _check_image_encoder_source(cls, source: str | None) -> str | None:
        if source is not None and not _is_model_source(source):
            raise ValueError(f"must be an absolute path, store:<key prefix> or hub:<id>, got {source!r}")
        return source


def _is_model_source(source: str) -> bool:
    kind, _, rest = source.partition(":")
    return (kind == "store" and is_key(rest.rstrip("/"))) or (kind == "hub" and bool(rest)) or source.startswith("/")


class ServiceSettings(BaseSettings):
    """Settings of both services, read from `DETEX_<FIELD>`; values that are not scalars are JSON.

    Attributes:
        listen_address: Host and port of gRPC; port 0 selects a free one.
        metrics_address: Host and port of /metrics, /healthz and /readyz over HTTP; port 0 selects a free one; empty
            disables them.
        tls_certificate_file: PEM file with the certificate of the service and those that lead to its authority;
            encrypts the gRPC port. Read again when it changes.
        tls_key_file: PEM file with its key.
        tls_client_authority_file: PEM file with the authorities of client certificates; requires one of every
            connection.
        access_policy_file: Who may call, and what for (docs/security.md); without it everybody may, as any tenant.
        audit_log_file: File of the audit log; without it calls are not recorded.
        insecure: Whether to serve a network without encryption or without a policy.
        object_store: Where concepts, training sets and base models are stored.
        base_models: Available base models.
        default_base_model: Name of the base model for requests that name none; empty means the first.
        device: `auto` uses a GPU if there is one.
        dtype: Type of the weights; `auto` is float16 on a GPU (bfloat16 in the trainer) and float32 elsewhere.
        allow_downloads: Whether base models may be downloaded from a hub.
        work_folder: Folder for the service's own files.
        drain_delay_seconds: Wait between reporting NOT_SERVING and refusing calls, for load balancers to notice.
        drain_grace_seconds: Maximum wait for running calls at shutdown.
        max_message_bytes: Maximum size of a gRPC message in either direction.
        picture_memory_bytes: Memory for decoding pictures of callers, in total; a call that finds none free waits, and
            is refused after `picture_wait_seconds`. 0 means an eighth of the memory of the machine or container, at
            least 64 MiB and at most 2 GiB.
        picture_wait_seconds: Maximum wait for that memory.
        message_memory_bytes: Memory for large messages (above 1 MiB) of running calls, in total; one tenant may hold
            half of it. Messages that do not fit are refused at once. 0 as above.
        max_calls_per_tenant: Maximum number of concurrent calls per tenant, including streams that follow a job;
            further calls are refused. 0 sets no limit.
        liveness_seconds: /healthz fails once the event loop has been blocked for this long.
        readiness_interval_seconds: Interval between readiness checks.
        log_format: `auto` writes text on terminals and JSON lines elsewhere.
        log_level: Minimum level that is logged.
    """

    model_config = SettingsConfigDict(env_prefix="DETEX_", extra="forbid", frozen=True, hide_input_in_errors=True)

    listen_address: Address = "127.0.0.1:50051"
    metrics_address: Address | Literal[""] = "127.0.0.1:9464"
    tls_certificate_file: Path | None = None
    tls_key_file: Path | None = None
    tls_client_authority_file: Path | None = None
    access_policy_file: Path | None = None
    audit_log_file: Path | None = None
    insecure: bool = False
    object_store: ObjectStoreSettings = Field(default_factory=ObjectStoreSettings)
    base_models: tuple[BaseModelSettings, ...] = Field(
        default=(BaseModelSettings(name="showroom", source="embedded"),), min_length=1
    )
    default_base_model: str = ""
    device: Device = "auto"
    dtype: Dtype = "auto"
    allow_downloads: bool = False
    work_folder: Path = Field(default_factory=state_folder)
    drain_delay_seconds: float = Field(default=0.0, ge=0, le=600)
    drain_grace_seconds: float = Field(default=30.0, ge=0, le=86_400)
    max_message_bytes: int = Field(default=64 * 1024**2, ge=64 * 1024, le=2**31 - 1)
    picture_memory_bytes: int = Field(default=0, ge=0)
    picture_wait_seconds: float = Field(default=60.0, gt=0, le=3600)
    message_memory_bytes: int = Field(default=0, ge=0)
    max_calls_per_tenant: int = Field(default=1_000, ge=0, le=1_000_000)
    liveness_seconds: float = Field(default=30.0, gt=0, le=3600)
    readiness_interval_seconds: float = Field(default=5.0, gt=0, le=600)
    log_format: Literal["auto", "json", "text"] = "auto"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @model_validator(mode="before")
    @classmethod
    def _trim(cls, values: Any) -> Any:
        return trimmed(values)

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file: must be set together, or not at all")
        if self.tls_client_authority_file is not None and self.tls_certificate_file is None:
            raise ValueError("tls_client_authority_file: must come with tls_certificate_file")
        return self

    @model_validator(mode="after")
    def _check_base_models(self) -> Self:
        names = [base_model.name for base_model in self.base_models]
        if len(set(names)) != len(names):
            raise ValueError(f"base_models: names must be unique, got {names}")
        if self.default_base_model and self.default_base_model not in names:
            raise ValueError(f"default_base_model: must be one of {names}, got {self.default_base_model!r}")
        return self

    def base_model(self, name: str = "", *, field: str = "base_model") -> BaseModelSettings:
        """The base model of that name, or the default for an empty one.

        Raises:
            InvalidInputError: There is none of that name.
        """
        wanted = name or self.default_base_model or self.base_models[0].name
        for base_model in self.base_models:
            if base_model.name == wanted:
                return base_model
        names = ", ".join(base_model.name for base_model in self.base_models)
        raise invalid_input(field, repr(name), f"one of {names}, or empty for the default")
