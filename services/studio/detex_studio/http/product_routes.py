"""Products: learned, judged, listed, deleted."""

from dataclasses import asdict
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from detex_client import Concept, Job, JobState
from detex_studio.errors import not_found, refused
from detex_studio.http.news_stream import news_stream
from detex_studio.http.request_values import document, id_in_path, text
from detex_studio.learning import Quality, job_document, seconds_per_step, steps_of
from detex_studio.plain_words import finding
from detex_studio.product_names import LONGEST_LABEL, concept_name
from detex_studio.workshop import Workshop


def product_routes(workshop: Workshop) -> list[Route]:
    """Routes of products and of the jobs that they are learned by."""
    shelf, trainer, settings = workshop.shelf, workshop.trainer, workshop.settings

    def show_products(_: Request) -> Response:
        newest: dict[str, Concept] = {}
        for concept in trainer.concepts():
            newest.setdefault(concept.reference.name, concept)
        products = [_product(workshop, concept) for concept in newest.values()]
        products.sort(key=lambda each: str(each["created"]), reverse=True)
        running = trainer.jobs(states=[JobState.QUEUED, JobState.RUNNING])
        return JSONResponse({"products": products, "jobs": [_named_job(workshop, job) for job in running]})

    def show_product(request: Request) -> Response:
        return JSONResponse(_product(workshop, trainer.concept(id_in_path(request, "concept"))))

    def show_qualities(_: Request) -> Response:
        pace = seconds_per_step(trainer)
        steps = {quality: steps_of(quality, trainer, settings) for quality in Quality}
        told = [
            {"quality": each.value, "steps": steps[each], "seconds": None if pace is None else pace * steps[each]}
            for each in Quality
        ]
        return JSONResponse({"qualities": told})

    async def learn(request: Request) -> Response:
        values = await document(request)
        label = text(values, "label", LONGEST_LABEL, shortest=1)
        set_id = text(values, "training_set_id", 128, shortest=1)
        key = text(values, "key", 64, shortest=8)
        try:
            quality = Quality(values.get("quality", Quality.BALANCED))
        except ValueError:
            raise refused("quality", ", ".join(Quality), repr(values.get("quality"))) from None

        def submit() -> Job:
            steps = steps_of(quality, trainer, settings)
            previews = max(1, steps // settings.previews) if settings.previews else 0
            job = trainer.submit(
                set_id,
                name=concept_name(label, key),
                base_model=settings.base_model,
                idempotency_key=key,
                steps=steps,
                preview_interval_steps=previews,
            )
            shelf.name_product(job.concept_name, label, set_id)
            return job

        job = await run_in_threadpool(submit)
        return JSONResponse(_named_job(workshop, job), 201)

    def show_job(request: Request) -> Response:
        return JSONResponse(_named_job(workshop, trainer.job(id_in_path(request, "job_id"))))

    async def follow_job(request: Request) -> Response:
        news = await run_in_threadpool(workshop.jobs.of, id_in_path(request, "job_id"))
        return news_stream(news, request.app.state.ending)

    def cancel_job(request: Request) -> Response:
        return JSONResponse(_named_job(workshop, trainer.cancel(id_in_path(request, "job_id"))))

    def show_verdict(request: Request) -> Response:
        report = trainer.concept_report(id_in_path(request, "concept"))
        return JSONResponse(
            {
                "verdict": report.verdict.value,
                "summary": report.summary,
                "findings": [asdict(finding(each)) for each in report.findings],
            }
        )

    def show_report(request: Request) -> Response:
        report = trainer.concept_report(id_in_path(request, "concept"))
        if not report.report_png:
            raise not_found("report")
        return Response(report.report_png, media_type="image/png")

    def delete_product(request: Request) -> Response:
        concept = id_in_path(request, "concept")
        known = shelf.product(concept)
        gone = trainer.delete_concept(concept)
        pictures = shelf.drop_pictures([picture.picture_id for picture in shelf.pictures(concept)])
        photos = shelf.drop_photos(known.training_set_id) if known is not None else 0
        shelf.drop_product(concept)
        return JSONResponse(
            {"versions": len(gone.references), "files": len(gone.keys), "pictures": pictures, "photos": photos}
        )

    return [
        Route("/api/products", show_products, methods=["GET"]),
        Route("/api/products/{concept}", show_product, methods=["GET"]),
        Route("/api/products/{concept}", delete_product, methods=["DELETE"]),
        Route("/api/products/{concept}/verdict", show_verdict, methods=["GET"]),
        Route("/api/products/{concept}/report.png", show_report, methods=["GET"]),
        Route("/api/qualities", show_qualities, methods=["GET"]),
        Route("/api/jobs", learn, methods=["POST"]),
        Route("/api/jobs/{job_id}", show_job, methods=["GET"]),
        Route("/api/jobs/{job_id}/news", follow_job, methods=["GET"]),
        Route("/api/jobs/{job_id}/cancel", cancel_job, methods=["POST"]),
    ]


def _product(workshop: Workshop, concept: Concept) -> dict[str, Any]:
    """A product for the page; `photos` is how many small copies there are, `words` how many photos have words."""
    name = concept.reference.name
    known = workshop.shelf.product(name)
    pictures = workshop.shelf.pictures(name)
    cover = next((each for each in pictures if each.favourite), pictures[0] if pictures else None)
    set_id = known.training_set_id if known else ""
    return {
        "concept": name,
        "label": known.label if known else name,
        "class_word": concept.class_word,
        "created": concept.create_time.isoformat(),
        "size_bytes": concept.size_bytes,
        "training_set_id": set_id,
        "photos": workshop.shelf.photo_count(set_id) if set_id else 0,
        "words": {attribute.name: attribute.count for attribute in concept.attributes},
        "pictures": len(pictures),
        "cover": cover.picture_id if cover else None,
    }


def _named_job(workshop: Workshop, job: Job) -> dict[str, Any]:
    known = workshop.shelf.product(job.concept_name)
    set_id = job.training_set_id
    return job_document(job) | {
        "label": known.label if known else job.concept_name,
        "photos": workshop.shelf.photo_count(set_id),
    }
