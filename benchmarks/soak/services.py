"""Trainer and generator as processes of their own, over one object store."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import SecretStr

from benchmarks.soak.tenant import Addresses
from detex_core.object_store import ObjectStore, open_object_store
from detex_core.settings import ObjectStoreSettings
from tests.deploy.running_service import RunningService, environment, poll, start_service

StoreKind = Literal["folder", "s3"]
DatabaseKind = Literal["sqlite", "postgresql"]
BASE_MODEL = "showroom"

_STOP_SECONDS = 90


@dataclass(frozen=True)
class Services:
    """Both services, which serve.

    Attributes:
        trainer: The trainer.
        generator: The generator.
        store: Their object store.
        store_folder: Its folder; None where it is an S3 server.
    """

    trainer: RunningService
    generator: RunningService
    store: ObjectStore
    store_folder: Path | None

    @property
    def addresses(self) -> Addresses:
        """Where they listen."""
        return Addresses(
            self.trainer.address, self.generator.address, self.trainer.metrics_address, self.generator.metrics_address
        )

    def both(self) -> tuple[RunningService, RunningService]:
        """Trainer and generator."""
        return self.trainer, self.generator


@contextmanager
def running_services(
    folder: Path,
    *,
    base_model: str = "embedded",
    store: StoreKind = "folder",
    database: DatabaseKind = "sqlite",
) -> Iterator[Services]:
    """Both services within a `with` block.

    Args:
        folder: For all that they write; must be there.
        base_model: `embedded`, or the absolute path of a folder in diffusers' format.
        store: Where objects lie: a folder, or a SeaweedFS of the tests over S3.
        database: Where jobs lie: a file, or a PostgreSQL of the tests.
    """
    with ExitStack() as stack:
        variables = environment(folder)
        variables["DETEX_BASE_MODELS"] = json.dumps([{"name": BASE_MODEL, "source": base_model}])
        variables["DETEX_READINESS_INTERVAL_SECONDS"] = "1"
        settings = ObjectStoreSettings(url=variables["DETEX_OBJECT_STORE_URL"])
        if store == "s3":
            settings = stack.enter_context(_s3_server(folder / "s3"))
            variables["DETEX_OBJECT_STORE_URL"] = settings.url
            for name, key in (("ACCESS", settings.access_key), ("SECRET", settings.secret_key)):
                variables[f"DETEX_S3_{name}_KEY"] = key.get_secret_value() if key else ""
        if database == "postgresql":
            variables |= stack.enter_context(_postgresql())
        started = [
            stack.enter_context(_running(name, folder, variables | {"DETEX_WORK_FOLDER": str(folder / name)}))
            for name in ("trainer", "generator")
        ]
        for service in started:
            service.wait_until_listening()
        for service in started:
            poll(lambda service=service: service.health() == "SERVING")  # type: ignore[misc]
        store_folder = folder / "store" if store == "folder" else None
        yield Services(started[0], started[1], open_object_store(settings), store_folder)


@contextmanager
def _running(name: str, folder: Path, variables: dict[str, str]) -> Iterator[RunningService]:
    service = start_service(name, folder / f"{name}.log", variables)
    try:
        yield service
    finally:
        service.process.terminate()
        try:
            service.process.wait(_STOP_SECONDS)
        finally:
            service.process.kill()
            service.process.wait()


@contextmanager
def _s3_server(folder: Path) -> Iterator[ObjectStoreSettings]:
    from tests.servers.seaweedfs import start_seaweedfs  # wants what other runs do without

    server = start_seaweedfs(folder)
    try:
        yield ObjectStoreSettings(
            url=server.url("soak"), access_key=SecretStr(server.access_key), secret_key=SecretStr(server.secret_key)
        )
    finally:
        server.kill()


@contextmanager
def _postgresql() -> Iterator[dict[str, str]]:
    from tests.servers.postgresql import running_postgres

    with running_postgres() as server:
        yield {"DETEX_DATABASE_URL": server.url(), "PGPASSWORD": server.password}
