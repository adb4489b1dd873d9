"""Where the files of a model come from: a folder, the embedded model, the object store, or a hub."""

import hashlib
import tempfile
from pathlib import Path

from detex_core.errors import FailedPreconditionError, NotFoundError, UnavailableError
from detex_core.object_store import ObjectInfo, ObjectStore
from detex_diffusion.fingerprint import file_sha256
from detex_showroom import AssetMissingError, base_model_path

_HUB_FILES = ["*.json", "*.txt", "*.safetensors"]


def model_folder(
    source: str, *, work_folder: Path, object_store: ObjectStore | None = None, allow_downloads: bool = False
) -> Path:
    """A local folder with the files of a model.

    Args:
        source: An absolute path, `embedded`, `store:<key prefix>` or `hub:<id>[@<revision>]`.
        work_folder: Where copies of what is not local are kept, under `models`.
        object_store: Needed for `store:`.
        allow_downloads: Needed for `hub:`.

    Raises:
        FailedPreconditionError: There is no such folder, no object store, or downloads are not allowed.
        NotFoundError: The object store or the hub has nothing there.
        DataLossError: A copy has not the hash it should have.
        UnavailableError: The object store or the hub does not answer.
    """
    kind, _, rest = source.partition(":")
    if source == "embedded":
        try:
            return base_model_path()
        except AssetMissingError as error:
            raise FailedPreconditionError(f"The embedded model is not part of this installation: {error}") from error
    if kind == "store":
        if object_store is None:
            raise FailedPreconditionError(
                f"Model source {source!r} needs an object store, and none is configured here."
            )
        return _from_store(rest, object_store, work_folder)
    if kind == "hub":
        return _from_hub(rest, work_folder, allow_downloads)
    folder = Path(source)
    checkpoint = folder if folder.is_file() else _single_file(folder)
    if checkpoint is not None:
        raise FailedPreconditionError(
            f"Model source {source!r}: {checkpoint.name} is a single-file checkpoint; must be a folder in "
            f'diffusers format. If you trust it, convert it: python -c "from diffusers import '
            "StableDiffusionPipeline as Pipeline; "
            f"Pipeline.from_single_file('{checkpoint.name}').save_pretrained('<new folder>')\", for Stable Diffusion "
            "XL with StableDiffusionXLPipeline.",
            reason="BASE_MODEL_UNSUPPORTED",
        )
    if not folder.is_dir():
        raise FailedPreconditionError(
            f"Model source {source!r}: there is no such folder; must be embedded, the absolute path of a folder in "
            "diffusers format, store:<key prefix> or hub:<id>."
        )
    return folder


def _single_file(folder: Path) -> Path | None:
    """The checkpoint in a folder that holds no model in diffusers format but one or more such files, or None."""
    if not folder.is_dir() or (folder / "model_index.json").exists() or (folder / "config.json").exists():
        return None
    return next((path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".ckpt")), None)


def _from_store(prefix: str, object_store: ObjectStore, work_folder: Path) -> Path:
    prefix = prefix.rstrip("/") + "/"
    keys = [listed.key for listed in object_store.list(prefix)]
    objects = {key.removeprefix(prefix): object_store.stat(key) for key in keys}
    if not objects:
        raise NotFoundError(f"The object store holds no model under {prefix!r}.")
    listing = "".join(f"{name}\0{_identity(info)}\n" for name, info in sorted(objects.items()))
    # Named by its content: another version of the model under the same prefix gets a folder of its own.
    folder = work_folder / "models" / hashlib.sha256(listing.encode()).hexdigest()[:32]
    for name, info in objects.items():
        path = folder / name
        if not _is_copy(path, info):
            _copy(object_store, info, path)
    return folder


def _identity(info: ObjectInfo) -> str:
    # What others than an ObjectStore have put there has no recorded hash.
    return info.sha256 or f"{info.size_bytes}@{info.modified.isoformat()}"


def _is_copy(path: Path, info: ObjectInfo) -> bool:
    if not path.is_file() or path.stat().st_size != info.size_bytes:
        return False
    return not info.sha256 or file_sha256(path) == info.sha256


def _copy(object_store: ObjectStore, info: ObjectInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # A path of its own, so that processes that start together do not write into each other's copy.
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        copy = Path(scratch) / path.name
        object_store.get_file(info.key, copy, expected_sha256=info.sha256 or None)
        copy.replace(path)


def _from_hub(name: str, work_folder: Path, allow_downloads: bool) -> Path:
    if not allow_downloads:
        raise FailedPreconditionError(
            f"Model source 'hub:{name}' needs a download, and downloads are disabled; set DETEX_ALLOW_DOWNLOADS=true, "
            "or use a folder or a key prefix of the object store."
        )
    import huggingface_hub
    from huggingface_hub import errors

    identifier, _, revision = name.partition("@")
    try:
        folder = huggingface_hub.snapshot_download(
            identifier, revision=revision or None, cache_dir=work_folder / "hub", allow_patterns=_HUB_FILES
        )
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError) as error:
        raise NotFoundError(f"The hub has no model {name!r} for this user.") from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, OSError) as error:
        raise UnavailableError(
            f"Model {name!r} could not be downloaded from the hub: {type(error).__name__}."
        ) from error
    return Path(folder)
