from pathlib import Path

import pytest
import torch

from detex_core.errors import FailedPreconditionError, NotFoundError
from detex_core.object_store import FolderStore
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import load_base_model


def settings(source: Path | str) -> BaseModelSettings:
    return BaseModelSettings(name="tiny", source=str(source))


def upload(store: FolderStore, folder: Path, prefix: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put_file(f"{prefix}/{path.relative_to(folder).as_posix()}", path)


def test_a_base_model_from_the_object_store(model_folders: dict[str, Path], tmp_path: Path) -> None:
    store, work = FolderStore(tmp_path / "store"), tmp_path / "work"
    upload(store, model_folders["sd2"], "base_models/tiny")
    direct = load_base_model(settings(model_folders["sd2"]))
    got = load_base_model(settings("store:base_models/tiny"), object_store=store, work_folder=work)
    assert got.fingerprint == direct.fingerprint
    assert got.folder.is_relative_to(work)
    for name, parameter in direct.unet.named_parameters():
        assert torch.equal(got.unet.get_parameter(name), parameter)

    # A copy that has been damaged meanwhile is fetched again, an intact one is not.
    weights = got.folder / "unet" / "diffusion_pytorch_model.safetensors"
    intact = (got.folder / "vae" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    again = load_base_model(settings("store:base_models/tiny"), object_store=store, work_folder=work)
    assert again.fingerprint == direct.fingerprint
    assert (got.folder / "vae" / "diffusion_pytorch_model.safetensors").stat().st_mtime_ns == intact


def test_sources_that_cannot_be_had(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    with pytest.raises(NotFoundError, match="no model under 'nothing/'"):
        load_base_model(settings("store:nothing"), object_store=store, work_folder=tmp_path)
    with pytest.raises(FailedPreconditionError, match="needs an object store"):
        load_base_model(settings("store:nothing"), work_folder=tmp_path)
    with pytest.raises(FailedPreconditionError, match=r"there is no such folder; must be embedded"):
        load_base_model(settings(tmp_path / "nowhere"), work_folder=tmp_path)
    with pytest.raises(FailedPreconditionError, match="DETEX_ALLOW_DOWNLOADS=true"):
        load_base_model(settings("hub:someone/something"), work_folder=tmp_path)
