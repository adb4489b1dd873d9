"""Pictures: ordered, watched, kept, marked, downloaded, deleted."""

import io
import zipfile
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from detex_client import ConceptReference
from detex_core.prompt import CONCEPT_NAMES
from detex_studio.drawing import Drawing, drawing_request, picture_document, variation_of
from detex_studio.errors import StudioError, not_found, refused
from detex_studio.http.news_stream import news_stream
from detex_studio.http.request_values import document, id_in_path, number, photo_index, text
from detex_studio.scenes import SCENES, Choice, escaped, prompt_of
from detex_studio.shelf import KeptPicture, is_id
from detex_studio.workshop import Workshop

LONGEST_SCENE = 300


def picture_routes(workshop: Workshop) -> list[Route]:
    """Routes of pictures and of the orders that they are drawn by."""
    shelf, desk, settings = workshop.shelf, workshop.desk, workshop.settings

    def known(request: Request) -> KeptPicture:
        picture = shelf.picture(id_in_path(request, "picture_id"))
        if picture is None:
            raise not_found("picture")
        return picture

    async def order(request: Request) -> Response:
        values = await document(request)
        concept = text(values, "concept", 63, shortest=1)
        count = number(values, "count", 1, settings.max_pictures, 1)
        preset = text(values, "preset", 40)
        if preset and preset not in SCENES:
            raise refused("preset", f"empty or one of {', '.join(SCENES)}", repr(preset))
        words = text(values, "scene", LONGEST_SCENE)
        source = text(values, "variation_of", 64)
        pose, background = photo_index(values, "pose"), photo_index(values, "background")
        wanted = {"preset": preset, "scene": words, "pose": pose, "background": background, "count": count}

        def begin() -> Drawing:
            edit = None
            if source:
                path = shelf.picture_path(source)
                if path is None:
                    raise not_found("picture")
                edit = variation_of(path.read_bytes())
            scene = ", ".join(part for part in (SCENES.get(preset, ""), escaped(words)) if part)
            prompt = prompt_of(ConceptReference(concept), Choice(scene, pose, background))
            drawing = drawing_request(prompt, count, base_model=settings.base_model, edit=edit)
            return desk.order(concept, drawing, wanted | {"variation_of": source})

        if not CONCEPT_NAMES.is_name(concept):
            raise not_found("product")
        if source and not is_id(source):
            raise not_found("picture")
        return JSONResponse(_order(await run_in_threadpool(begin)), 201)

    def show_orders(request: Request) -> Response:
        running = desk.running(id_in_path(request, "concept"))
        return JSONResponse({"drawings": [_order(drawing) for drawing in running]})

    async def follow_order(request: Request) -> Response:
        return news_stream(_running(request).news, request.app.state.ending)

    def stop_order(request: Request) -> Response:
        drawing = _running(request)
        drawing.stop.set()
        return JSONResponse(_order(drawing))

    def _running(request: Request) -> Drawing:
        drawing = desk.drawing(id_in_path(request, "drawing_id"))
        if drawing is None:
            raise not_found("order")
        return drawing

    def show_history(request: Request) -> Response:
        pictures = shelf.pictures(id_in_path(request, "concept"))
        return JSONResponse({"pictures": [picture_document(picture) for picture in pictures]})

    def show_picture(request: Request) -> Response:
        picture = known(request)
        path = shelf.picture_path(picture.picture_id)
        if path is None:
            raise not_found("picture")
        headers = {"cache-control": "private, max-age=31536000, immutable"}
        if "download" in request.query_params:
            name = f"{picture.concept}-{picture.picture_id[:6]}.png"
            return FileResponse(path, media_type="image/png", filename=name)
        return FileResponse(path, media_type="image/png", headers=headers)

    def download_favourites(request: Request) -> Response:
        concept = id_in_path(request, "concept")
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for picture in shelf.pictures(concept, favourites=True):
                path = shelf.picture_path(picture.picture_id)
                if path is not None:
                    archive.write(path, f"{concept}-{picture.picture_id[:6]}.png")
        if not archive.filelist:
            raise StudioError(404, "NO_FAVOURITES", "No picture is marked.")
        headers = {"content-disposition": f'attachment; filename="{concept}.zip"'}
        return Response(buffer.getvalue(), media_type="application/zip", headers=headers)

    async def mark_picture(request: Request) -> Response:
        values = await document(request)
        favourite = values.get("favourite")
        if not isinstance(favourite, bool):
            raise refused("favourite", "true or false", repr(favourite))
        picture = await run_in_threadpool(known, request)
        await run_in_threadpool(shelf.mark, picture.picture_id, favourite)
        return JSONResponse(picture_document(picture) | {"favourite": favourite})

    def delete_picture(request: Request) -> Response:
        return JSONResponse({"pictures": shelf.drop_pictures([known(request).picture_id])})

    return [
        Route("/api/drawings", order, methods=["POST"]),
        Route("/api/drawings/{drawing_id}/news", follow_order, methods=["GET"]),
        Route("/api/drawings/{drawing_id}/stop", stop_order, methods=["POST"]),
        Route("/api/products/{concept}/drawings", show_orders, methods=["GET"]),
        Route("/api/products/{concept}/pictures", show_history, methods=["GET"]),
        Route("/api/products/{concept}/favourites.zip", download_favourites, methods=["GET"]),
        Route("/api/pictures/{picture_id}.png", show_picture, methods=["GET"]),
        Route("/api/pictures/{picture_id}", mark_picture, methods=["PATCH"]),
        Route("/api/pictures/{picture_id}", delete_picture, methods=["DELETE"]),
    ]


def _order(drawing: Drawing) -> dict[str, Any]:
    return {"drawing_id": drawing.drawing_id, "concept": drawing.concept, "count": drawing.count}
