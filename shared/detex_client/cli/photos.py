"""`detex photos`: training sets stored by the trainer."""

from pathlib import Path
from typing import Annotated

import typer

from detex_client.cli import options
from detex_client.cli.failure import reported
from detex_client.cli.picture_files import write_picture
from detex_client.cli.terminal import Terminal
from detex_client.errors import naming_files, refused
from detex_client.trainer_client import TrainerClient
from detex_client.training_set import TrainingSet

photos = typer.Typer(help="Inspect and replace masks of uploaded photos, and delete photos.", no_args_is_help=True)

TrainingSetId = Annotated[str, typer.Argument(help="Training set id, as printed by `detex train`.")]


@photos.command("masks")
@reported
def show_masks(
    training_set_id: TrainingSetId,
    out: Annotated[Path, typer.Option(help="Folder for the masks and for photos darkened around the subject.")] = Path(
        "masks"
    ),
    trainer: options.TrainerAddress = options.TRAINER_ADDRESS,
    tenant: options.Tenant = options.TENANT,
    tls: options.UseTls = False,
    root_certificates: options.RootCertificates = None,
    json_output: options.Json = False,
) -> None:
    """Save the masks that training uses, whether uploaded or computed."""
    terminal = Terminal(json_output=json_output)
    with options.open_trainer(trainer, tenant, tls, root_certificates) as client:
        training_set = client.training_set(training_set_id)
        write_masks(terminal, client, training_set, out)
    terminal.document(training_set)


@photos.command("replace-mask")
@reported
def replace_mask(
    training_set_id: TrainingSetId,
    photo_index: Annotated[int, typer.Argument(min=0, help="Index of the photo; the first is 0.")],
    mask: Annotated[Path, typer.Argument(help="Mask of the size of the photo, subject white on black.")],
    trainer: options.TrainerAddress = options.TRAINER_ADDRESS,
    tenant: options.Tenant = options.TENANT,
    tls: options.UseTls = False,
    root_certificates: options.RootCertificates = None,
    json_output: options.Json = False,
) -> None:
    """Replace the mask of a photo; jobs submitted afterwards use it."""
    terminal = Terminal(json_output=json_output)
    try:
        data = mask.read_bytes()
    except OSError as error:
        raise refused("mask", f"{mask} ({error.strerror})", "a readable file") from None
    with naming_files({"mask": mask}), options.open_trainer(trainer, tenant, tls, root_certificates) as client:
        training_set = client.replace_mask(training_set_id, photo_index, data)
    terminal.document(training_set)
    terminal.say(f"Photo {photo_index} now has the mask {mask}.")
    for warning in training_set.warnings:
        terminal.warn(warning)


@photos.command("delete")
@reported
def delete_photos(
    training_set_id: TrainingSetId,
    trainer: options.TrainerAddress = options.TRAINER_ADDRESS,
    tenant: options.Tenant = options.TENANT,
    tls: options.UseTls = False,
    root_certificates: options.RootCertificates = None,
    json_output: options.Json = False,
) -> None:
    """Delete stored photos and masks."""
    terminal = Terminal(json_output=json_output)
    with options.open_trainer(trainer, tenant, tls, root_certificates) as client:
        deleted = client.delete_training_set(training_set_id)
    terminal.document({"deleted_keys": list(deleted)})
    terminal.say(f"Deleted {len(deleted)} objects of {training_set_id}.")


def write_masks(terminal: Terminal, client: TrainerClient, training_set: TrainingSet, folder: Path) -> None:
    """Save the masks of a training set, and photos darkened around the subject."""
    for photo in training_set.photos:
        view = client.mask(training_set.training_set_id, photo.photo_index)
        shown = write_picture(folder, f"preview_{photo.photo_index}", view.preview_png)
        if not view.mask_png:
            terminal.warn(f"Photo {photo.name} has no mask: no subject was found.")
            continue
        path = write_picture(folder, f"mask_{photo.photo_index}", view.mask_png)
        terminal.say(f"Photo {photo.name}: {path}, shown in {shown} ({photo.mask_source.value}).")
