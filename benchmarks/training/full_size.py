"""Training at the full size of Stable Diffusion 1.5 with random weights, for which a GPU is needed."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.full_size.architectures import ARCHITECTURES
from benchmarks.full_size.random_folder import write_folder
from benchmarks.results_file import ResultRow, at_most
from benchmarks.training.runs import make_run
from benchmarks.training.scale import Scale
from benchmarks.training.speed import packing_rows
from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_showroom.assets import sample_subjects
from detex_trainer.domain.hyperparameters import default_hyperparameters
from detex_trainer.learning.methods.graphed_pass import graph_passes
from detex_trainer.learning.training.loop import TrainingPack

_GIB = 1024**3


def full_size_rows(model: str, device: torch.device, scale: Scale) -> Iterator[ResultRow]:
    """A concept of `detex` from photos to its last step, its memory, and many concepts in one pack.

    Args:
        model: Shapes of the base model, a key of `ARCHITECTURES`.
        device: Where to train; in bfloat16 on a GPU, as workers do it, and in float32 elsewhere.
        scale: How many steps and concepts.
    """
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with tempfile.TemporaryDirectory(prefix="detex-full-size-") as folder:
        write_folder(Path(folder) / model, ARCHITECTURES[model], dtype, device)
        settings = BaseModelSettings(name=model, source=str(Path(folder) / model))
        base_model = load_base_model(settings, device, dtype)
        if device.type == "cuda":
            graph_passes(base_model)  # as the worker does it
        yield from _concept_rows(base_model, scale)
        try:
            yield from packing_rows(base_model, scale)
        except torch.OutOfMemoryError as error:
            yield ResultRow(
                what=f"{scale.concepts} concepts of detex packed against one after another",
                value=None,
                unit="x",
                note=f"the memory of the GPU does not suffice: {str(error)[:120]}",
            )


def _concept_rows(base_model: BaseModel, scale: Scale) -> Iterator[ResultRow]:
    is_gpu = base_model.device.type == "cuda"
    steps = scale.job_steps or default_hyperparameters("detex").steps
    name, side = ARCHITECTURES[base_model.name].name, base_model.height
    if is_gpu:
        torch.cuda.reset_peak_memory_stats(base_model.device)
    began = time.perf_counter()
    run = make_run(base_model, sample_subjects()[0], "detex", seed=0, batch=scale.batch)
    prepared = time.perf_counter() - began
    pack = TrainingPack(base_model)
    pack.add(run, [])
    for _ in range(steps):
        pack.advance()
    if is_gpu:
        torch.cuda.synchronize(base_model.device)
    yield ResultRow(
        what=f"seconds of a concept, {name}, {side} px, batch {scale.batch}, {steps} steps",
        value=time.perf_counter() - began,
        unit="s",
        reach=at_most(60) if is_gpu else None,
        note=f"of which {prepared:.3g} s to prepare photos; {base_model.dtype}, random weights, no attributes (these "
        "shapes have no image encoder); without loading and publishing",
    )
    if is_gpu:
        yield ResultRow(
            what="memory of the GPU during that, base model included",
            value=torch.cuda.max_memory_allocated(base_model.device) / _GIB,
            unit="GiB",
            reach=at_most(12),
        )
