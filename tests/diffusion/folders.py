"""Folders of tiny models, changed as others save them, and how both services read them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_trainer.base_models.description import BaseModelDescription, DescriptionRequest, describe
from tests.tiny_models import EULER_EPSILON

Change = Callable[[Path], None]

# As playgroundai/playground-v2.5-1024px-aesthetic has it.
EDM = {
    "_class_name": "EDMDPMSolverMultistepScheduler",
    "algorithm_type": "dpmsolver++",
    "dynamic_thresholding_ratio": 0.995,
    "euler_at_final": False,
    "final_sigmas_type": "zero",
    "lower_order_final": True,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rho": 7.0,
    "sample_max_value": 1.0,
    "sigma_data": 0.5,
    "sigma_max": 80.0,
    "sigma_min": 0.002,
    "solver_order": 2,
    "solver_type": "midpoint",
    "thresholding": False,
}
STATISTICS = {"latents_mean": [-1.6, 1.9, -1.4, 2.5], "latents_std": [8.5, 5.9, 6.5, 5.2], "scaling_factor": 0.5}
TURBO = {**EULER_EPSILON, "_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}


def change_json(place: str, **values: object) -> Change:
    def change(folder: Path) -> None:
        path = folder / place
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def with_scheduler(config: dict[str, Any]) -> Change:
    def change(folder: Path) -> None:
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
        change_json("model_index.json", scheduler=["diffusers", config["_class_name"]])(folder)

    return change


def scheduler(**values: object) -> Change:
    return change_json("scheduler/scheduler_config.json", **values)


def settings(folder: Path) -> BaseModelSettings:
    return BaseModelSettings(name="tiny", source=str(folder))


def load(folder: Path) -> BaseModel:
    """As the generator and the workers of the trainer load it."""
    return load_base_model(settings(folder))


def described(folder: Path) -> BaseModelDescription:
    """As the trainer looks at it before it takes a job."""
    return describe(
        DescriptionRequest(
            base_model=settings(folder),
            object_store_url="folder:///nowhere",
            work_folder=folder.parent / "work",
            allow_downloads=False,
        )
    )
