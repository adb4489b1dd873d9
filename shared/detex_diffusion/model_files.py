"""The files of a model folder in diffusers format: JSON, and weights as safetensors."""

import json
import os
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from detex_core.errors import DataLossError, FailedPreconditionError

_T = TypeVar("_T")

# Looked for among what is loaded: who only reads names and headers does without the libraries.
_LIBRARY_LOGS = ("diffusers.utils.logging", "transformers.utils.logging")
_POINTER = b"version https://git-lfs.github.com/spec/"
_MOST_HEADER_BYTES = 100_000_000  # as the library safetensors has it


@dataclass(frozen=True)
class WeightFiles:
    """The safetensors files of a part.

    Attributes:
        files: One file, or the index of several and then these.
        variant: `fp16` where the names say so, otherwise None.
    """

    files: tuple[Path, ...]
    variant: str | None


def read_json(path: Path) -> dict[str, Any]:
    """An object of a JSON file; raises DataLossError where the file is missing or holds none."""
    try:
        check_no_pointer(path)
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataLossError(f"{place_name(path)} is missing.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataLossError(f"{place_name(path)} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataLossError(f"{place_name(path)} holds no JSON object.")
    return content


def weight_files(place: Path, stem: str) -> WeightFiles:
    """Where the weights of a part lie: in one file or in several with an index, of full or half precision.

    Raises:
        FailedPreconditionError: The weights are pickles.
        DataLossError: There are none, one that the index names is missing, or one is cut off or a pointer of git-lfs.
    """
    for variant, name, index in (
        (None, f"{stem}.safetensors", f"{stem}.safetensors.index.json"),
        ("fp16", f"{stem}.fp16.safetensors", f"{stem}.safetensors.index.fp16.json"),
    ):
        if (place / name).is_file():
            _check_whole(place / name)
            return WeightFiles((place / name,), variant)
        if (place / index).is_file():
            parts = _indexed_files(place / index)
            for part in parts:
                _check_whole(part)
            return WeightFiles((place / index, *parts), variant)
    others = sorted(path.name for path in place.glob("*.safetensors"))
    if others:
        raise DataLossError(
            f"{place_name(place)} lacks {stem}.safetensors; there is {', '.join(others[:3])}. Weights under another "
            f"name (such as non_ema) are not read: rename what is to be served to {stem}.safetensors."
        )
    if any(any(place.glob(pattern)) for pattern in ("*.bin", "*.ckpt", "*.pt", "*.pth", "*.pkl")):
        raise FailedPreconditionError(
            f"{place_name(place)} holds its weights as pickle, which can run code when read and is refused; convert it "
            f"to {stem}.safetensors if you trust it, with diffusers: from_pretrained(<folder>) and "
            "save_pretrained(<new folder>, safe_serialization=True)."
        )
    raise DataLossError(f"{place_name(place)} lacks {stem}.safetensors.")


def loaded_model(model_class: Any, place: Path, stem: str, **options: Any) -> Any:
    """A model of diffusers or transformers with every tensor accounted for.

    Args:
        model_class: With `from_pretrained`.
        place: Folder of the part.
        stem: Of the names of its weight files.
        options: For `from_pretrained`.

    Raises:
        FailedPreconditionError: Its weights are pickles.
        DataLossError: A file is missing or damaged, or tensors are missing, unknown or of wrong shape.
    """
    read_json(place / "config.json")
    weights = weight_files(place, stem)
    model, report = loaded(
        place,
        lambda: model_class.from_pretrained(
            place,
            variant=weights.variant,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
            **options,
        ),
    )
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        names = sorted(str(name) for name in report.get(key) or [] if not str(name).endswith("position_ids"))
        if names:
            shown = ", ".join(names[:3]) + (" and more" if len(names) > 3 else "")
            raise DataLossError(
                f"{place_name(weights.files[0])} does not fit its config: {key.replace('_', ' ')} {shown}."
            )
    return model


def loaded(place: Path, load: Callable[[], _T]) -> _T:
    """What `load` gives; whatever a library raises about a damaged file becomes a DataLossError."""
    # Bars of the libraries' own, one for each part, would garble the logs of a service.
    libraries = [sys.modules[name] for name in _LIBRARY_LOGS if name in sys.modules]
    barred = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in barred:
        library.disable_progress_bar()
    try:
        return load()
    except MemoryError:
        raise
    except Exception as error:  # tokenizers raises nothing narrower
        message = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise DataLossError(f"{place_name(place)} cannot be loaded: {message}") from error
    finally:
        for library in barred:
            library.enable_progress_bar()


def place_name(path: Path) -> str:
    """How errors name a file: with its folder, without where that lies."""
    return f"{path.parent.name}{os.sep}{path.name}"


def check_no_pointer(path: Path) -> None:
    """Raise DataLossError where a file is what git keeps in place of a large one, and OSError where it is missing."""
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise DataLossError(
                f"{place_name(path)} is a pointer of git-lfs, not the file itself; run `git lfs pull` in the clone it "
                "came from, or download the file."
            )


def check_tokenizer_files(place: Path) -> None:
    """Raise DataLossError where a tokenizer lacks a file, or one is a pointer of git-lfs."""
    whole = ["tokenizer.json"] if (place / "tokenizer.json").is_file() else ["vocab.json", "merges.txt"]
    for name in whole:
        if not (place / name).is_file():
            raise DataLossError(f"{place_name(place)} lacks tokenizer.json, or vocab.json and merges.txt.")
        check_no_pointer(place / name)


def _check_whole(path: Path) -> None:
    """Raise DataLossError where a safetensors file is not as long as its own header says."""
    name = place_name(path)
    try:
        check_no_pointer(path)
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else _MOST_HEADER_BYTES + 1
            size = path.stat().st_size
            if length > min(size, _MOST_HEADER_BYTES):
                raise DataLossError(f"{name} is no safetensors file, or is cut off within its header.")
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        expected = 8 + length + max(ends, default=0)
    except (OSError, ValueError, AttributeError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise DataLossError(f"{name} has a header that cannot be read: {type(error).__name__}.") from error
    if size != expected:
        what = "is cut off" if size < expected else "is longer than it should be"
        raise DataLossError(f"{name} {what}: it has {size:,} bytes, and its header speaks of {expected:,}.")


def _indexed_files(index: Path) -> list[Path]:
    """The files that an index spreads the tensors over, in the order of their names."""
    spread = read_json(index).get("weight_map")
    names: set[str] = {str(name) for name in spread.values()} if isinstance(spread, dict) else set()
    # A name with a separator would lead out of the folder.
    if not names or any(name != Path(name).name for name in names):
        raise DataLossError(f"{place_name(index)} does not say which file of its folder holds which tensor.")
    files = [index.parent / name for name in sorted(names)]
    for file in files:
        if not file.is_file():
            raise DataLossError(f"{place_name(file)} is missing, which {index.name} names.")
    return files
