"""Photos and masks: dropped, shown, painted on, deleted."""

import asyncio
from dataclasses import asdict
from typing import Any

from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from detex_client import MaskSource, TrainingSet
from detex_studio.errors import StudioError, not_found, refused
from detex_studio.http.request_values import id_in_path
from detex_studio.photos import DroppedPhoto, painted_mask, shown_mask, upload
from detex_studio.plain_words import warning
from detex_studio.workshop import Workshop

UPLOAD_PATH = "/api/photos"
LONGEST_CLASS_WORD = 64
UPLOADS_AT_A_TIME = 2
"""More wait: each holds its photos in memory."""


def photo_routes(workshop: Workshop) -> list[Route]:
    """Routes of photos and masks."""
    shelf, trainer = workshop.shelf, workshop.trainer
    turns = asyncio.Semaphore(UPLOADS_AT_A_TIME)

    async def receive_photos(request: Request) -> Response:
        most = workshop.settings.max_photos
        try:
            async with request.form(max_files=most + 1, max_fields=4, max_part_size=1024) as form:
                class_word = str(form.get("class_word", "")).strip()
                if not 1 <= len(class_word) <= LONGEST_CLASS_WORD:
                    raise refused("class_word", f"1 to {LONGEST_CLASS_WORD} characters", repr(class_word))
                files = [file for file in form.getlist("photos") if not isinstance(file, str)]
                if not 2 <= len(files) <= most:
                    raise StudioError(400, "PHOTO_COUNT", f"photos: must be 2 to {most}, got {len(files)}")
                async with turns:
                    photos = [DroppedPhoto(file.filename or "", await file.read()) for file in files]
                    done = await run_in_threadpool(upload, trainer, photos, class_word)
        except HTTPException as error:  # what the parser of forms refuses
            raise refused("photos", f"2 to {most} files", error.detail) from None
        set_id = done.training_set.training_set_id
        await run_in_threadpool(shelf.keep_photos, set_id, class_word, done.copies)
        return JSONResponse(training_set_document(done.training_set) | {"notes": done.notes}, 201)

    def show_set(request: Request) -> Response:
        return JSONResponse(training_set_document(trainer.training_set(id_in_path(request, "set_id"))))

    def delete_set(request: Request) -> Response:
        set_id = id_in_path(request, "set_id")
        keys = trainer.delete_training_set(set_id)
        return JSONResponse({"files": len(keys), "copies": shelf.drop_photos(set_id)})

    def show_photo(request: Request) -> Response:
        path = shelf.photo(id_in_path(request, "set_id"), int(request.path_params["index"]))
        if path is None:
            raise not_found("photo")
        return FileResponse(path, media_type="image/webp")

    def show_mask(request: Request) -> Response:
        set_id, index = id_in_path(request, "set_id"), int(request.path_params["index"])
        found = trainer.mask(set_id, index)
        path = shelf.photo(set_id, index)
        size = (found.photo.width, found.photo.height)
        if path is not None:
            with Image.open(path) as copy:
                size = copy.size
        return Response(shown_mask(found.mask_png, size), media_type="image/png")

    async def replace_mask(request: Request) -> Response:
        set_id, index = id_in_path(request, "set_id"), int(request.path_params["index"])
        data = await request.body()

        def replace() -> TrainingSet:
            photos = trainer.training_set(set_id).photos
            if index >= len(photos):
                raise not_found("photo")
            size = (photos[index].width, photos[index].height)
            return trainer.replace_mask(set_id, index, painted_mask(data, size))

        return JSONResponse(training_set_document(await run_in_threadpool(replace)))

    return [
        Route(UPLOAD_PATH, receive_photos, methods=["POST"]),
        Route("/api/sets/{set_id}", show_set, methods=["GET"]),
        Route("/api/sets/{set_id}", delete_set, methods=["DELETE"]),
        Route("/api/sets/{set_id}/photos/{index:int}", show_photo, methods=["GET"]),
        Route("/api/sets/{set_id}/masks/{index:int}", show_mask, methods=["GET"]),
        Route("/api/sets/{set_id}/masks/{index:int}", replace_mask, methods=["PUT"]),
    ]


def training_set_document(training_set: TrainingSet) -> dict[str, Any]:
    """A training set for the page."""
    return {
        "training_set_id": training_set.training_set_id,
        "class_word": training_set.class_word,
        "photos": [
            {
                "index": photo.photo_index,
                "name": photo.file_name,
                "width": photo.width,
                "height": photo.height,
                "mask_share": photo.mask_share,
                "found": photo.mask_source is not MaskSource.SEGMENTER or photo.mask_share > 0,
            }
            for photo in training_set.photos
        ],
        "warnings": [asdict(warning(text)) for text in training_set.warnings],
    }
