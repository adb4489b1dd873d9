"""The base model of a job, as its device computes it best."""

import torch

from detex_core.errors import FailedPreconditionError
from detex_core.object_store import ObjectStore
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_trainer.frozen import freeze_base_model
from detex_trainer.job_spec import JobSpec
from detex_trainer.training.memory import free_memory_bytes

# Gradients underflow in float16; what is trained is float32 in any case.
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def base_model_of(spec: JobSpec, store: ObjectStore) -> BaseModel:
    """The base model of a job on its device.

    On a GPU, `auto` takes bfloat16 where it has that.

    Raises:
        FailedPreconditionError: The type is one in which training does not work.
        DetexError: As `load_base_model`.
    """
    device = spec.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = spec.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    if dtype not in _DTYPES:
        raise FailedPreconditionError(
            f"The trainer is set to {dtype}, in which gradients underflow; set auto, float32 or bfloat16."
        )
    base_model = load_base_model(
        spec.base_model,
        device,
        _DTYPES[dtype],
        store,
        work_folder=spec.work_folder,
        allow_downloads=spec.allow_downloads,
    )
    if spec.gradient_checkpointing:
        base_model.unet.enable_gradient_checkpointing()
    freeze_base_model(base_model, free_memory_bytes(base_model.device))
    return base_model
