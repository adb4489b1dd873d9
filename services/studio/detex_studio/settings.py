"""Settings of Studio, read from the environment (`DETEX_STUDIO_*`, and those that every client has)."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from detex_client.generator_client import DEFAULT_ADDRESS as GENERATOR_ADDRESS
from detex_client.trainer_client import DEFAULT_ADDRESS as TRAINER_ADDRESS
from detex_core.settings import Address, state_folder
from detex_core.settings_text import trimmed
from detex_core.tenancy import DEFAULT_TENANT

MEBIBYTE = 1024**2


def _studio_folder() -> Path:
    return state_folder() / "studio"


class StudioSettings(BaseSettings):
    """What Studio is told.

    Attributes:
        listen_address: Host and port of the page; port 0 takes a free one.
        allowed_hosts: Names under which browsers may ask for the page, without ports, beside `localhost`, `127.0.0.1`,
            `[::1]` and the host it listens on. Requests under other names are refused.
        trainer_address: Host and port of the trainer.
        generator_address: Host and port of the generator.
        tenant: Whose products they are; sent along with every call.
        tls: Whether calls to the services are encrypted.
        root_certificates: PEM file with the authorities to trust; switches encryption on.
        base_model: Base model by name; empty leaves it to the services.
        data_folder: Where pictures, favourites, product names and small copies of photos are kept.
        max_upload_bytes: Largest upload of photos in all.
        max_photos: Photos of one product.
        max_pictures: Pictures of one order.
        max_running_drawings: Orders of pictures that may run or wait at a time.
        fast_share: Training steps of "fast", in shares of the trainer's default.
        balanced_share: Training steps of "balanced", likewise.
        best_share: Training steps of "best", likewise.
        previews: Previews that are asked for in the course of one training.
        log_level: Least level that is logged.
    """

    model_config = SettingsConfigDict(
        env_prefix="DETEX_STUDIO_", extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True
    )

    listen_address: Address = "127.0.0.1:8080"
    allowed_hosts: tuple[str, ...] = ()
    trainer_address: str = Field(default=TRAINER_ADDRESS, min_length=1, validation_alias="DETEX_TRAINER_ADDRESS")
    generator_address: str = Field(default=GENERATOR_ADDRESS, min_length=1, validation_alias="DETEX_GENERATOR_ADDRESS")
    tenant: str = Field(default=DEFAULT_TENANT, min_length=1, validation_alias="DETEX_TENANT")
    tls: bool = Field(default=False, validation_alias="DETEX_TLS")
    root_certificates: Path | None = Field(default=None, validation_alias="DETEX_ROOT_CERTIFICATES")
    base_model: str = ""
    data_folder: Path = Field(default_factory=_studio_folder)
    max_upload_bytes: int = Field(default=256 * MEBIBYTE, ge=MEBIBYTE, le=512 * MEBIBYTE)
    max_photos: int = Field(default=20, ge=2, le=64)
    max_pictures: int = Field(default=8, ge=1, le=64)
    max_running_drawings: int = Field(default=8, ge=1, le=64)
    fast_share: float = Field(default=0.5, gt=0, le=10)
    balanced_share: float = Field(default=1.0, gt=0, le=10)
    best_share: float = Field(default=2.0, gt=0, le=10)
    previews: int = Field(default=8, ge=0, le=50)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @model_validator(mode="before")
    @classmethod
    def _trim(cls, values: Any) -> Any:
        return trimmed(values)

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not host or host != host.strip() or any(mark in host for mark in "/:*@ "):
                raise ValueError(f"must be host names without scheme and port, got {host!r}")
        return tuple(host.lower() for host in hosts)

    @property
    def host(self) -> str:
        """The host that it listens on, IPv6 addresses without brackets."""
        return self.listen_address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.listen_address.rpartition(":")[2])
