"""`detex generate`: generate pictures from a prompt."""

import re
from pathlib import Path
from typing import Annotated

import typer

from detex_client.cli import composition, options
from detex_client.cli.failure import reported
from detex_client.cli.picture_files import slug, write_picture
from detex_client.cli.progress_display import ProgressDisplay
from detex_client.cli.terminal import Terminal
from detex_client.errors import refused
from detex_client.generator_client import GENERATION_TIMEOUT_SECONDS
from detex_client.picture import (
    DenoisingProgress,
    GeneratedPicture,
    GenerationEvent,
    PicturePreview,
    PictureRequest,
    Queued,
)
from detex_client.picture_content import RegionMode
from detex_client.wire_enum import Solver

_PLACES = "Subject placement"
_PHOTO = "Photo to edit"


@reported
def generate(
    prompt: Annotated[str, typer.Argument(help="Prompt, in quotes; concept words are in square brackets.")],
    count: Annotated[int, typer.Option(min=1, help="Number of pictures, 1 to 64; picture i uses seed + i.")] = 1,
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("pictures"),
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the first picture.", show_default="random")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Denoising steps.", show_default="the base model's")] = None,
    guidance_scale: Annotated[
        float | None,
        typer.Option(
            help="Classifier-free guidance: how closely to follow the prompt.", show_default="the base model's"
        ),
    ] = None,
    guidance_interval: Annotated[
        str,
        typer.Option(
            metavar="START,END",
            help="Apply guidance only in this part of the steps, as fractions of 0 to 1.",
            show_default="all",
        ),
    ] = "",
    solver: Annotated[Solver | None, typer.Option(help="Solver (sampler).", show_default="the base model's")] = None,
    negative: Annotated[str, typer.Option(help="Negative prompt.", show_default=False)] = "",
    size: Annotated[
        str, typer.Option(metavar="WIDTHxHEIGHT", help="Size in pixels.", show_default="the base model's")
    ] = "",
    preview: Annotated[
        int, typer.Option(min=0, metavar="STEPS", help="Save a preview every STEPS steps; 0 saves none.")
    ] = 0,
    base_model: Annotated[str, typer.Option(help="Base model by name.", show_default="the generator's")] = "",
    concept_version: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VERSION", help="Version of a concept (repeatable).", show_default="the newest"),
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PLACE",
            help="Place of a subject: LEFT,TOP,RIGHT,BOTTOM as fractions of 0 to 1, or a mask (repeatable).",
            show_default=False,
            rich_help_panel=_PLACES,
        ),
    ] = None,
    region_mode: Annotated[
        RegionMode | None,
        typer.Option(help="How prompt and regions are combined.", show_default="blend", rich_help_panel=_PLACES),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(help="Photo to start from, or to edit with --mask.", show_default=False, rich_help_panel=_PHOTO),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="White is redrawn; with --keep-product, white is the product.",
            show_default=False,
            rich_help_panel=_PHOTO,
        ),
    ] = None,
    keep_product: Annotated[
        bool,
        typer.Option(
            "--keep-product", help="Keep the product's pixels and generate the scene around it.", rich_help_panel=_PHOTO
        ),
    ] = False,
    strength: Annotated[
        float | None,
        typer.Option(
            help="How far to depart from the photo, above 0 and at most 1.",
            show_default="0.8; 1 with a mask or product",
            rich_help_panel=_PHOTO,
        ),
    ] = None,
    shadow: Annotated[
        float, typer.Option(help="Opacity of a shadow below the product, 0 to 1.", rich_help_panel=_PHOTO)
    ] = 0.0,
    generator: options.GeneratorAddress = options.GENERATOR_ADDRESS,
    tenant: options.Tenant = options.TENANT,
    tls: options.UseTls = False,
    root_certificates: options.RootCertificates = None,
    timeout: options.Timeout = GENERATION_TIMEOUT_SECONDS,
    json_output: options.Json = False,
) -> None:
    """Generate pictures.

    [my-mug] is the subject of a concept, [my-mug:pose:2] the pose of its photo 2, [my-mug:background:0] the
    background of its photo 0. Shells interpret square brackets, so put the prompt in quotes:

    detex generate '[my-mug] with [my-mug:pose:2] on a beach' --count 4

    Place subjects, or edit a photo:

    detex generate '[my-mug] next to [my-vase]' --region my-mug=0,0,0.5,1 --region my-vase=0.5,0,1,1

    detex generate 'a mug on a beach' --image mug.jpg --mask mug.mask.png --keep-product --shadow 0.5

    Files are named by prompt and seed and are never overwritten; each PNG holds everything needed to reproduce it.
    """
    terminal = Terminal(json_output=json_output)
    width, height = _size(size)
    request = PictureRequest(
        prompt=prompt,
        negative_prompt=negative,
        base_model=base_model,
        count=count,
        seed=seed,
        steps=steps,
        guidance_scale=guidance_scale,
        guidance_interval=_interval(guidance_interval),
        solver=solver,
        width=width,
        height=height,
        preview_interval_steps=preview,
        concept_versions=_versions(concept_version or []),
        regions=composition.regions(region or []),
        region_mode=region_mode,
        edit=composition.edit(image, mask, keep_product=keep_product, strength=strength, shadow=shadow),
    )
    with (
        options.open_generator(generator, tenant, tls, root_certificates) as client,
        terminal.progress() as progress,
    ):
        keeper = _Keeper(terminal, progress, request, out)
        for event in client.generate_events(request, timeout_seconds=timeout):
            keeper.take(event)
        keeper.finish()
    for path in keeper.paths:
        terminal.result(str(path))


class _Keeper:
    """Shows the events of one request and writes its pictures."""

    def __init__(self, terminal: Terminal, progress: ProgressDisplay, request: PictureRequest, folder: Path) -> None:
        self.paths: list[Path] = []
        self._terminal = terminal
        self._request = request
        self._folder = folder
        self._slug = slug(request.prompt)
        self._bar = progress.bar(f"Generating {max(request.count, 1)} picture{'s' if request.count > 1 else ''}")
        self._steps: dict[int, int] = {}

    def take(self, event: GenerationEvent) -> None:
        """Show one event, or write its picture."""
        match event:
            case Queued():
                waiting = f"{event.queue_position} ahead" if event.queue_position else ""
                self._bar.update(0, None, detail=waiting)
                self._terminal.event("queued", event)
            case DenoisingProgress():
                self._steps[event.image_index] = event.step
                self._show(event.total_steps)
                self._terminal.event("progress", event)
            case PicturePreview():
                stem = f"{self._slug}_picture-{event.image_index}_step-{event.step:03d}"
                path = write_picture(self._folder / "previews", stem, event.png)
                self._terminal.event(
                    "preview", {"image_index": event.image_index, "step": event.step, "path": str(path)}
                )
            case GeneratedPicture():
                path = write_picture(self._folder, f"{self._slug}_seed-{event.seed}", event.png)
                self.paths.append(path)
                described = {"image_index": event.image_index, "path": str(path), "seed": event.seed}
                self._terminal.event("picture", {**described, "provenance": event.provenance})

    def finish(self) -> None:
        """Show that all pictures are there."""
        self._bar.finish()

    def _show(self, total_steps: int) -> None:
        count = max(self._request.count, 1)
        done, total = sum(self._steps.values()), total_steps * count
        self._bar.update(done, total, amount=f"{len(self.paths)}/{count} pictures", detail=f"{done}/{total} steps")


def _interval(text: str) -> tuple[float, float] | None:
    if not text:
        return None
    try:
        start, end = (float(part) for part in text.split(","))
    except ValueError:
        raise refused("--guidance-interval", text, "START,END as fractions of the steps, for example 0.2,0.8") from None
    return start, end


def _size(size: str) -> tuple[int, int]:
    if not size:
        return 0, 0
    match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", size)
    if match is None:
        raise refused("--size", size, "WIDTHxHEIGHT in pixels, for example 512x512")
    return int(match[1]), int(match[2])


def _versions(pairs: list[str]) -> dict[str, str]:
    versions = {}
    for pair in pairs:
        name, equals, version = pair.partition("=")
        if not (name and equals and version):
            raise refused("--concept-version", pair, "NAME=VERSION")
        versions[name] = version
    return versions
