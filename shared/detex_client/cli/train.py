"""`detex train`: train a concept from photos."""

from pathlib import Path
from typing import Annotated

import typer

from detex_client import hyperparameters as hyperparameter_values
from detex_client.cli import options
from detex_client.cli.failure import reported
from detex_client.cli.interruption import cancel_and_leave, held_back
from detex_client.cli.job_display import UploadDisplay, follow
from detex_client.cli.photos import write_masks
from detex_client.cli.terminal import Terminal
from detex_client.cli.verdict_display import find_report, say_verdict
from detex_client.concept import check_concept_name
from detex_client.errors import refused
from detex_client.job import Job
from detex_client.trainer_client import TrainerClient
from detex_client.training_photo import TrainingPhoto, find_training_photos, left_out
from detex_client.wire_enum import Method


@reported
def train(
    photos: Annotated[
        list[Path], typer.Argument(help="Photos of one subject (PNG, JPEG, WebP, HEIC, AVIF, TIFF, BMP), or folders.")
    ],
    class_word: Annotated[str, typer.Option(help="What the subject is, in one or two plain words, for example mug.")],
    name: Annotated[str, typer.Option(help="Concept name, which prompts use in square brackets.")],
    mask: Annotated[
        list[Path] | None,
        typer.Option(help="Mask of a photo, subject white on black; one per photo, in order.", show_default=False),
    ] = None,
    find_masks: Annotated[bool, typer.Option(help="Look for masks next to the photos.")] = True,
    caption: Annotated[
        list[str] | None,
        typer.Option(help="Caption of a photo; one per photo, in order.", show_default=False),
    ] = None,
    method: Annotated[Method, typer.Option(help="Training method.")] = Method.DETEX,
    attribute: Annotated[
        list[str] | None,
        typer.Option(
            help="Attribute that gets a word of its own per photo (repeatable).", show_default="pose, background"
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Training steps.", show_default="the method's")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Random seed.", show_default="random")] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other hyperparameter, for example key_value_learning_rate=1e-4 (repeatable).",
            show_default=False,
        ),
    ] = None,
    previews: Annotated[
        Path | None,
        typer.Option(help="Folder for preview pictures; see --set preview_interval_steps=50.", show_default=False),
    ] = None,
    keep_photos: Annotated[
        bool,
        typer.Option("--keep-photos", help="Keep the uploaded photos; otherwise they are deleted when the job ends."),
    ] = False,
    masks_folder: Annotated[
        Path | None,
        typer.Option("--masks", help="Save the masks that training uses to this folder.", show_default=False),
    ] = None,
    base_model: Annotated[str, typer.Option(help="Base model by name.", show_default="the trainer's")] = "",
    wait: Annotated[bool, typer.Option(help="Wait until the job ends; Ctrl-C then cancels it.")] = True,
    trainer: options.TrainerAddress = options.TRAINER_ADDRESS,
    tenant: options.Tenant = options.TENANT,
    tls: options.UseTls = False,
    root_certificates: options.RootCertificates = None,
    json_output: options.Json = False,
) -> None:
    """Train a concept from three to five photos of one subject.

    A mask keeps the background out of the concept. The mask of mug.jpg is the file mug.mask.png, mug_mask.png or
    mask_mug.png next to it; for photo_3.jpg, mask_3.png is accepted too. Photos of a folder are sorted in natural
    order, and the first has index 0 in prompts.
    """
    terminal = Terminal(json_output=json_output)
    check_concept_name(name)
    hyperparameters = _hyperparameters(steps, seed, setting or [])
    hyperparameter_values.to_wire(hyperparameters)
    masks = mask or None
    found = find_training_photos(photos, masks=masks, captions=caption or None)
    if masks is None and not find_masks:
        found = tuple(TrainingPhoto(photo.photo, None, photo.caption) for photo in found)
    for path in left_out(photos):
        terminal.warn(f"{path} is not taken: photos are PNG, JPEG, WebP, HEIC, AVIF, TIFF or BMP files.")
    with options.open_trainer(trainer, tenant, tls, root_certificates) as client:
        training_set_id = _upload(terminal, client, found, class_word, keep_photos, masks_folder)
        job: Job | None = None
        try:
            with held_back():
                job = client.submit(
                    training_set_id,
                    name=name,
                    method=method,
                    attributes=attribute or [],
                    base_model=base_model,
                    **hyperparameters,
                )
            if not wait:
                terminal.event("job", job)
                terminal.result(job.job_id)
                terminal.say(f"Queued. Follow it with `detex jobs watch {job.job_id}`.")
                return
            terminal.say(f"Submitted job {job.job_id}.")
            with terminal.progress() as progress:
                ended = follow(terminal, progress, client.watch(job.job_id), previews)
        except KeyboardInterrupt:
            if job is None:
                raise
            cancel_and_leave(terminal, client, job.job_id)
        _conclude(terminal, client, ended)


def _upload(
    terminal: Terminal,
    client: TrainerClient,
    photos: tuple[TrainingPhoto, ...],
    class_word: str,
    keep_photos: bool,
    masks_folder: Path | None,
) -> str:
    with terminal.progress() as progress:
        display = UploadDisplay(progress, len(photos))
        training_set = client.upload(
            photos, class_word=class_word, keep_photos=keep_photos, on_progress=display, on_note=terminal.say
        )
        display.finish()
    terminal.event("training_set", training_set)
    masks = sum(photo.mask is not None for photo in photos)
    terminal.say(f"Uploaded {len(photos)} photos with {masks} masks.")
    for warning in training_set.warnings:
        terminal.warn(warning)
    if masks_folder is not None:
        write_masks(terminal, client, training_set, masks_folder)
    return training_set.training_set_id


def _conclude(terminal: Terminal, client: TrainerClient, job: Job) -> None:
    concept = job.published()
    terminal.say(f"Trained {concept.word}, version {concept.version}.")
    report = find_report(terminal, client, concept.name, concept.version)
    if report is not None:
        terminal.event("report", report)
        say_verdict(terminal, report)
        terminal.say(f"Report:  detex concepts report {concept.name} --out FOLDER")
    terminal.say(f"Generate:  detex generate '{concept.word} on a beach'")
    terminal.result(concept.name)


def _hyperparameters(steps: int | None, seed: int | None, settings: list[str]) -> hyperparameter_values.Hyperparameters:
    found: hyperparameter_values.Hyperparameters = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise refused("--set", setting, "NAME=VALUE")
        found.update(hyperparameter_values.parse(name, value))
    if steps is not None:
        found["steps"] = steps
    if seed is not None:
        found["seed"] = seed
    return found
