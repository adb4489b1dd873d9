"""The server: listens, prints its address, ends on SIGINT and SIGTERM."""

import logging
import socket
import sys
from collections.abc import Callable

import uvicorn
from pydantic import ValidationError
from uvicorn.config import LOGGING_CONFIG

from detex_client import DetexClientError
from detex_client.cli.credentials import current_credentials
from detex_studio.application import application
from detex_studio.settings import StudioSettings

END_SECONDS = 5
"""Longest wait for running requests when Studio is told to end."""


class StudioServer(uvicorn.Server):
    """A server that has pages leave their streams when it ends, so that it can end.

    Args:
        settings: As told.
    """

    def __init__(self, settings: StudioSettings) -> None:
        self._settings = settings
        self._application = application(settings, current_credentials())
        level = settings.log_level.lower()
        logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        config = uvicorn.Config(
            self._application.asgi,
            log_level="warning" if level == "info" else level,
            log_config={**LOGGING_CONFIG, "disable_existing_loggers": False},
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=END_SECONDS,
            h11_max_incomplete_event_size=64 * 1024,
            limit_concurrency=256,
        )
        super().__init__(config)

    def listen(self) -> socket.socket:
        """Take the address.

        Raises:
            OSError: It is taken, or not of this machine.
        """
        family = socket.AF_INET6 if ":" in self._settings.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self._settings.host, self._settings.port))
        listener.listen()  # from now on browsers wait for the answer instead of being refused
        return listener

    async def shutdown(self, sockets: "list[socket.socket] | None" = None) -> None:
        """Have pages leave their streams, then wait for requests."""
        self._application.ending.set()
        await super().shutdown(sockets)


def serve(settings: StudioSettings, on_start: Callable[[str], None]) -> None:
    """Serve until a signal comes.

    Args:
        settings: As told.
        on_start: Called with the address of the page.
    """
    server = StudioServer(settings)
    with server.listen() as listener:
        on_start(page_address(settings, listener))
        server.run([listener])


def page_address(settings: StudioSettings, listener: socket.socket) -> str:
    """The address to open in a browser: `http://127.0.0.1:8080/`."""
    host = settings.host
    if host in {"0.0.0.0", "::"}:  # noqa: S104  compared with, not bound
        host = settings.allowed_hosts[0] if settings.allowed_hosts else "localhost"
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}/"


def main() -> None:
    """Run the server from the environment's settings; exits with 2 where they are at fault."""
    try:
        settings = StudioSettings()
        serve(settings, lambda address: print(f"Studio: {address}", flush=True))  # noqa: T201
    except ValidationError as error:
        for each in error.errors():
            sys.stderr.write(f"Error: {'.'.join(map(str, each['loc']))}: {each['msg']}\n")
        raise SystemExit(2) from None
    except DetexClientError as error:
        sys.stderr.write(f"Error: {error.message}\n")
        raise SystemExit(2) from None
    except OSError as error:
        sys.stderr.write(f"Error: {error.strerror or error}\n")
        raise SystemExit(1) from None
