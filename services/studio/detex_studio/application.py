"""Studio as an ASGI application."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from detex_client import DetexClientError, GeneratorClient, TrainerClient
from detex_client.cli.credentials import Credentials
from detex_studio.drawing import DrawingDesk
from detex_studio.errors import StudioError, as_document, as_status
from detex_studio.http.guard import Guard
from detex_studio.http.page_routes import page_routes
from detex_studio.http.photo_routes import UPLOAD_PATH, photo_routes
from detex_studio.http.picture_routes import picture_routes
from detex_studio.http.product_routes import product_routes
from detex_studio.learning import JobNews
from detex_studio.settings import StudioSettings
from detex_studio.shelf import Shelf
from detex_studio.workshop import Workshop

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Application:
    """Studio, to be served.

    Attributes:
        asgi: The ASGI application.
        ending: Set when Studio ends, so that pages leave their streams.
    """

    asgi: Guard
    ending: asyncio.Event


def application(settings: StudioSettings, credentials: Credentials) -> Application:
    """Studio with clients of its own.

    Args:
        settings: As told.
        credentials: What tells the services who calls.

    Raises:
        DetexClientError: An address, the tenant, a certificate or a token cannot be used.
        OSError: The data folder cannot be written to.
    """
    tls, token = credentials.tls(settings.tls, settings.root_certificates), credentials.bearer()
    trainer = TrainerClient(settings.trainer_address, settings.tenant, tls=tls, token=token)
    generator = GeneratorClient(settings.generator_address, settings.tenant, tls=tls, token=token)
    shelf = Shelf(settings.data_folder / settings.tenant)
    desk = DrawingDesk(generator, shelf, settings.max_running_drawings)
    workshop = Workshop(settings, trainer, generator, shelf, JobNews(trainer), desk)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        desk.end()
        trainer.close()
        generator.close()
        shelf.close()

    routes = [
        *page_routes(workshop),
        *photo_routes(workshop),
        *product_routes(workshop),
        *picture_routes(workshop),
    ]
    handlers = {
        StudioError: _own_error,
        DetexClientError: _service_error,
        HTTPException: _http_error,
        Exception: _defect,
    }
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers)  # type: ignore[arg-type]
    app.state.ending = asyncio.Event()
    hosts = (settings.host, *settings.allowed_hosts)
    guard = Guard(app, hosts=hosts, upload_path=UPLOAD_PATH, max_upload_bytes=settings.max_upload_bytes)
    return Application(guard, app.state.ending)


async def _own_error(_: Request, error: StudioError) -> Response:
    return JSONResponse(as_document(error), error.status)


async def _service_error(_: Request, error: DetexClientError) -> Response:
    return JSONResponse(as_document(error), as_status(error))


async def _http_error(_: Request, error: HTTPException) -> Response:
    told = StudioError(error.status_code, "NOT_FOUND" if error.status_code == 404 else "REFUSED", error.detail)
    return JSONResponse(as_document(told), error.status_code)


async def _defect(request: Request, error: Exception) -> Response:
    logger.error("a request of %s failed", request.url.path, exc_info=error)
    told = StudioError(500, "INTERNAL", "Studio could not answer; its log says why.")
    return JSONResponse(as_document(told), 500)
