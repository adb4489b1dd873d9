"""Orders of pictures: each runs on whether a page looks or not, and what is drawn is kept at once."""

import base64
import io
import secrets
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import Any

from PIL import Image

from detex_client import (
    DenoisingProgress,
    DetexClientError,
    Edit,
    EditKind,
    GeneratedPicture,
    GeneratorClient,
    PicturePreview,
    PictureRequest,
    Priority,
    Queued,
)
from detex_studio.broadcast import Broadcast
from detex_studio.errors import StudioError, as_document
from detex_studio.shelf import KeptPicture, Shelf

PREVIEW_INTERVAL_STEPS = 5
MOST_ENDED = 32
"""Orders that have ended and are still told of, so that a page that comes late hears how."""
VARIATION_STRENGTH = 0.65
"""How far a variation may leave its picture: the place of things stays, what they look like in detail changes."""


@dataclass
class Drawing:
    """An order of pictures.

    Attributes:
        drawing_id: Its id.
        concept: Product that it shows.
        count: Pictures that were ordered.
        news: What happens to it.
        stop: Set to end it at the next step.
    """

    drawing_id: str
    concept: str
    count: int
    news: Broadcast = field(default_factory=lambda: Broadcast(256))
    stop: Event = field(default_factory=Event)


def variation_of(png: bytes) -> Edit:
    """Begin from a picture instead of from nothing."""
    return Edit(EditKind.IMAGE_TO_IMAGE, png, strength=VARIATION_STRENGTH)


def picture_document(picture: KeptPicture) -> dict[str, Any]:
    """A picture of the history for the page."""
    return {
        "picture_id": picture.picture_id,
        "created": picture.created,
        "concept": picture.concept,
        "favourite": picture.favourite,
        "width": picture.width,
        "height": picture.height,
        "seed": picture.seed,
        "prompt": picture.prompt,
        "choice": picture.choice,
    }


class DrawingDesk:
    """Takes orders and has them drawn, each in a thread of its own.

    Args:
        generator: Who draws.
        shelf: Where pictures are kept.
        most_running: Orders at a time.
    """

    def __init__(self, generator: GeneratorClient, shelf: Shelf, most_running: int) -> None:
        self._generator = generator
        self._shelf = shelf
        self._most_running = most_running
        self._lock = Lock()
        self._drawings: dict[str, Drawing] = {}
        self._ended: dict[str, Drawing] = {}

    def order(self, concept: str, request: PictureRequest, choice: dict[str, Any]) -> Drawing:
        """Begin to draw.

        Raises:
            StudioError: As many orders run as may.
        """
        drawing = Drawing(secrets.token_hex(8), concept, request.count)
        with self._lock:
            if len(self._drawings) >= self._most_running:
                raise StudioError(429, "TOO_MANY_DRAWINGS", f"At most {self._most_running} orders run at a time.")
            self._drawings[drawing.drawing_id] = drawing
        drawing.news.publish("order", {"event": "order", "concept": concept, "count": request.count})
        Thread(target=self._draw, args=(drawing, request, choice), name="detex drawing", daemon=True).start()
        return drawing

    def running(self, concept: str) -> list[Drawing]:
        """Orders of a product that run, the oldest first."""
        with self._lock:
            return [drawing for drawing in self._drawings.values() if drawing.concept == concept]

    def drawing(self, drawing_id: str) -> Drawing | None:
        """An order that runs or has ended lately; None where there is none."""
        with self._lock:
            return self._drawings.get(drawing_id) or self._ended.get(drawing_id)

    def end(self) -> None:
        """Stop all orders."""
        with self._lock:
            for drawing in self._drawings.values():
                drawing.stop.set()

    def _draw(self, drawing: Drawing, request: PictureRequest, choice: dict[str, Any]) -> None:
        news = drawing.news
        events = self._generator.generate_events(request)
        try:
            for event in events:
                if drawing.stop.is_set():
                    news.publish("end", {"event": "stopped"})
                    return
                match event:
                    case Queued():
                        news.publish("queued", {"event": "queued", "ahead": event.queue_position})
                    case DenoisingProgress():
                        step = {"index": event.image_index, "step": event.step, "total_steps": event.total_steps}
                        news.publish(f"progress {event.image_index}", {"event": "progress", **step})
                    case PicturePreview():
                        png = base64.b64encode(event.png).decode()
                        shown = {"event": "preview", "index": event.image_index, "png": png}
                        news.publish(f"preview {event.image_index}", shown)
                    case GeneratedPicture():
                        kept = self._keep(drawing.concept, event, choice)
                        done = {"event": "picture", "index": event.image_index, **picture_document(kept)}
                        news.publish(f"preview {event.image_index}", done)
            news.publish("end", {"event": "done"})
        except DetexClientError as error:
            news.publish("end", {"event": "error", **as_document(error)})
        except OSError as error:
            told = StudioError(507, "CANNOT_KEEP", f"The picture cannot be kept: {error.strerror}.")
            news.publish("end", {"event": "error", **as_document(told)})
        finally:
            del events  # leaving it early ends the work at the generator
            with self._lock:
                self._drawings.pop(drawing.drawing_id, None)
                self._ended[drawing.drawing_id] = drawing
                while len(self._ended) > MOST_ENDED:
                    del self._ended[next(iter(self._ended))]
            news.end()

    def _keep(self, concept: str, picture: GeneratedPicture, choice: dict[str, Any]) -> KeptPicture:
        with Image.open(io.BytesIO(picture.png)) as image:
            size = image.size
        prompt = picture.provenance.prompt
        return self._shelf.keep_picture(
            concept, picture.png, size=size, seed=picture.seed, prompt=prompt, choice=choice
        )


def drawing_request(
    prompt: str, count: int, *, base_model: str = "", edit: Edit | None = None, seed: int | None = None
) -> PictureRequest:
    """The request of an order; somebody looks at the screen."""
    return PictureRequest(
        prompt,
        base_model=base_model,
        count=count,
        seed=seed,
        edit=edit,
        preview_interval_steps=PREVIEW_INTERVAL_STEPS,
        priority=Priority.HIGH,
    )
