"""`detex masks`: masks of local photos, without any service."""

import io
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from detex_client.cli import options
from detex_client.cli.failure import ExitCode, reported
from detex_client.cli.picture_files import write_picture
from detex_client.cli.terminal import Terminal
from detex_client.errors import from_domain, refused
from detex_client.training_photo import TrainingPhoto, find_training_photos
from detex_core.images import decode_photo
from detex_segmentation import Box, ModelStore, SalientObjectSegmenter, SubjectNotFoundError
from detex_segmentation.contact_sheet import JudgedPhoto, contact_sheet

_HELP = "say where it is with --box, or draw a mask"


@reported
def masks(
    photos: Annotated[list[Path], typer.Argument(help="Photos, or folders with photos.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Output folder; by default masks are written next to their photos.", show_default=False),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            help="PHOTO=LEFT,TOP,RIGHT,BOTTOM: box around the subject of that photo, in fractions of 0 to 1 "
            "(repeatable).",
            show_default=False,
        ),
    ] = None,
    sheet: Annotated[str, typer.Option(help="Name of the contact sheet with all photos outlined.")] = "masks-sheet",
    json_output: options.Json = False,
) -> None:
    """Segment the subjects of photos with the installed model (`detex segmenter install`); no service is needed.

    The mask of mug.jpg is written as mug.mask.png, where `detex train` finds it. Photos that already have a mask or a
    transparent background are skipped, and nothing is overwritten. Check the sheet before training.
    """
    terminal = Terminal(json_output=json_output)
    found = find_training_photos(photos)
    folder = out or found[0].photo.parent
    with from_domain():
        boxes = _boxes(box or [], found)
        model = ModelStore().installed()
        segmenter = SalientObjectSegmenter.of(model)
        judged: list[JudgedPhoto] = []
        written: dict[str, str | None] = {}
        for photo in found:
            if photo.mask is not None:
                terminal.say(f"{photo.photo.name} has the mask {photo.mask.name} already.")
                continue
            picture = decode_photo(photo.photo.read_bytes(), field=f"photos ({photo.photo.name})")
            if picture.mode == "RGBA":
                terminal.say(f"{photo.photo.name} has a transparent background: it needs no mask.")
                continue
            mask = _mask(terminal, segmenter, photo.photo, picture, boxes.get(photo.photo.name))
            judged.append(JudgedPhoto.reduced(photo.photo.name, picture, mask))
            written[str(photo.photo)] = None
            if mask is not None:
                path = write_picture(out or photo.photo.parent, f"{photo.photo.stem}.mask", _png(mask))
                written[str(photo.photo)] = str(path)
                terminal.say(f"{photo.photo.name}: {path}")
    # in a folder of its own: `detex train` takes pictures beside the photos for photos
    shown = write_picture(folder / "sheets", sheet, _png(contact_sheet(judged))) if judged else None
    terminal.document({"masks": written, "sheet": shown, "model_sha256": model.sha256})
    if shown is not None:
        terminal.say(f"Check the masks in {shown}.")
    if None in written.values():
        raise typer.Exit(ExitCode.FAILED)


def _mask(
    terminal: Terminal, segmenter: SalientObjectSegmenter, path: Path, picture: Image.Image, box: Box | None
) -> Image.Image | None:
    try:
        mask = segmenter.segment(picture, box)
    except SubjectNotFoundError as error:
        terminal.warn(f"{path.name}: {error} Take another photo, {_HELP}.")
        return None
    return Image.fromarray(np.round(mask * 255).astype(np.uint8))


def _boxes(texts: list[str], photos: tuple[TrainingPhoto, ...]) -> dict[str, Box]:
    names = {each.photo.name for each in photos}
    boxes: dict[str, Box] = {}
    for text in texts:
        name, equals, place = text.rpartition("=")
        if not equals or name not in names:
            raise refused("--box", text, "PHOTO=LEFT,TOP,RIGHT,BOTTOM with PHOTO the file name of one of the photos")
        boxes[name] = Box.parse(place)
    return boxes


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
