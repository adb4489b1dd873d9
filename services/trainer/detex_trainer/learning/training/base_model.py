"""The base model of a job, as its device computes it best."""

import torch

from detex_core.errors import FailedPreconditionError
from detex_core.object_store import ObjectStore
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_trainer.domain.job_spec import JobSpec
from detex_trainer.frozen import freeze_base_model
from detex_trainer.learning.methods import method_recipe
from detex_trainer.learning.methods.graphed_pass import graph_passes
from detex_trainer.learning.training.compiled_unet import compile_unet
from detex_trainer.learning.training.memory import free_memory_bytes

# Of the frozen weights and of what is computed with them; what is trained is float32 in any case.
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def base_model_of(spec: JobSpec, store: ObjectStore) -> BaseModel:
    """The base model of a job on its device.

    On a GPU, `auto` takes bfloat16 where it has that, else float32. In float16, for which a GPU is needed, losses are
    scaled (see `ConceptOptimizer`).

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
    if dtype == "float16" and device == "cpu":
        raise FailedPreconditionError("dtype: float16 requires a GPU; set auto, float32 or bfloat16.")
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
    is_frozen = method_recipe(spec.method).trains_unet == "no"
    is_compiled = spec.compile_unet and is_frozen and compile_unet(base_model)
    if spec.cuda_graphs and is_frozen and not spec.gradient_checkpointing and base_model.device.type == "cuda":
        graph_passes(base_model)
    freeze_base_model(base_model, free_memory_bytes(base_model.device), with_unet=not is_compiled)
    return base_model
