"""The page itself: HTML in the reader's language, its scripts, styles and texts, and whether the services answer."""

from pathlib import Path

import jinja2
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from detex_studio.errors import not_found
from detex_studio.http.guard import HEALTH_PATH
from detex_studio.messages import CATALOGS, as_dictionary, language_of
from detex_studio.scenes import SCENES
from detex_studio.workshop import Workshop

PAGE_FOLDER = Path(__file__).parent.parent / "page"
LANGUAGE_COOKIE = "detex-studio-language"
_MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_PING_SECONDS = 2.0


def page_routes(workshop: Workshop) -> list[Route]:
    """Routes of the page."""
    settings = workshop.settings
    loader = jinja2.FileSystemLoader(PAGE_FOLDER)
    template = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "index.html"
    )
    files = {path.name: path for path in PAGE_FOLDER.iterdir() if path.suffix in _MEDIA_TYPES}

    def show_page(request: Request) -> Response:
        asked = request.query_params.get("language", "")
        chosen = asked if asked in CATALOGS else request.cookies.get(LANGUAGE_COOKIE, "")
        language = language_of(chosen, request.headers.get("accept-language", ""))
        page = template.render(language=language, text=as_dictionary(CATALOGS[language]))
        response = HTMLResponse(page, headers={"vary": "accept-language, cookie"})
        if asked in CATALOGS:
            response.set_cookie(LANGUAGE_COOKIE, asked, max_age=31_536_000, httponly=True, samesite="strict")
        return response

    def show_file(request: Request) -> Response:
        path = files.get(str(request.path_params["name"]))
        if path is None:
            raise not_found("file")
        return FileResponse(path, media_type=_MEDIA_TYPES[path.suffix], headers={"cache-control": "no-cache"})

    def show_texts(request: Request) -> Response:
        catalog = CATALOGS.get(str(request.path_params["language"]))
        if catalog is None:
            raise not_found("language")
        return JSONResponse(as_dictionary(catalog))

    async def show_state(_: Request) -> Response:
        trainer = await run_in_threadpool(workshop.trainer.serving, _PING_SECONDS)
        generator = await run_in_threadpool(workshop.generator.serving, _PING_SECONDS)
        limits = {
            "max_photos": settings.max_photos,
            "max_pictures": settings.max_pictures,
            "max_upload_bytes": settings.max_upload_bytes,
        }
        return JSONResponse({"trainer": trainer, "generator": generator, "scenes": list(SCENES), "limits": limits})

    async def tell_health(_: Request) -> Response:
        return PlainTextResponse("ok")

    return [
        Route("/", show_page, methods=["GET"]),
        Route(HEALTH_PATH, tell_health, methods=["GET"]),
        Route("/page/{name}", show_file, methods=["GET"]),
        Route("/api/texts/{language}", show_texts, methods=["GET"]),
        Route("/api/state", show_state, methods=["GET"]),
    ]
