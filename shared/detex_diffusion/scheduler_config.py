"""`scheduler_config.json`: which schedules are known, told by what the file says, without a scheduler being built.

A base model was trained on one forward process, and the file describes it together with the sampler that whoever saved
it liked. Requests choose their solver, so of the sampler only what sets timesteps and noise levels counts.
"""

from collections.abc import Mapping
from typing import Any

from detex_diffusion.config_rules import (
    Rule,
    check_config,
    list_of,
    number,
    one_of,
    shown,
    switch,
    unread,
    unsupported,
    whole,
)

SCHEDULER_FILE = "scheduler/scheduler_config.json"

_BETAS = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
_BETAS_OF_CONSISTENCY = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_BETAS_OF_K = {**_BETAS_OF_CONSISTENCY, "beta_schedule": "linear"}

_BETAS_BY_CLASS: Mapping[str, Mapping[str, Any]] = {
    "DDIMScheduler": _BETAS,
    "DDIMParallelScheduler": _BETAS,
    "DDPMScheduler": _BETAS,
    "DDPMParallelScheduler": _BETAS,
    "DEISMultistepScheduler": _BETAS,
    "DPMSolverMultistepScheduler": _BETAS,
    "DPMSolverSinglestepScheduler": _BETAS,
    "EulerAncestralDiscreteScheduler": _BETAS,
    "EulerDiscreteScheduler": _BETAS,
    "LMSDiscreteScheduler": _BETAS,
    "PNDMScheduler": _BETAS,
    "UniPCMultistepScheduler": _BETAS,
    "DPMSolverSDEScheduler": _BETAS_OF_K,
    "HeunDiscreteScheduler": _BETAS_OF_K,
    "KDPM2AncestralDiscreteScheduler": _BETAS_OF_K,
    "KDPM2DiscreteScheduler": _BETAS_OF_K,
    "LCMScheduler": _BETAS_OF_CONSISTENCY,
    "TCDScheduler": _BETAS_OF_CONSISTENCY,
}
"""Known classes, each with the forward process that a file without these keys means."""

_CLIPS_BY_DEFAULT = {"DDIMScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler"}

_SOLVER = "the solver of a request decides"
_LATENTS = "thresholding is for pixels; latents have no such range"

_RULES: Mapping[str, Rule] = {
    "num_train_timesteps": whole(1, 100_000),
    "beta_start": number(0, 1, above=True),
    "beta_end": number(0, 1, above=True),
    "beta_schedule": one_of("linear", "scaled_linear", "squaredcos_cap_v2"),
    "trained_betas": list_of(number(0, 1), null=True),
    "prediction_type": one_of("epsilon", "v_prediction"),
    "timestep_spacing": one_of("leading", "linspace", "trailing"),
    "steps_offset": whole(0),
    "set_alpha_to_one": switch(),
    "rescale_betas_zero_snr": switch(),
    "clip_sample": switch(),
    "clip_sample_range": number(0, above=True),
    "final_sigmas_type": one_of("zero", "sigma_min"),
    "interpolation_type": one_of("linear", reason="log_linear leaves noise in finished latents"),
    "use_karras_sigmas": switch(),
    "use_exponential_sigmas": switch(),
    "use_lu_lambdas": switch(),
    "sigma_min": number(0, null=True),
    "sigma_max": number(0, null=True),
    "lambda_min_clipped": Rule(lambda value: isinstance(value, int | float), "a number"),
    "lower_order_final": switch(),
    "euler_at_final": switch(),
    "original_inference_steps": whole(1),
    "timestep_scaling": number(0, above=True),
    "thresholding": one_of(False, reason=_LATENTS),
    "use_beta_sigmas": one_of(False, reason="noise levels by quantiles of a beta distribution"),
    "use_flow_sigmas": one_of(False, reason="a flow schedule is not variance-preserving"),
    "use_dynamic_shifting": one_of(False, reason="a flow schedule is not variance-preserving"),
    "shift_terminal": one_of(None, reason="a flow schedule is not variance-preserving"),
    "timestep_type": one_of("discrete", reason="timesteps made of noise levels are those of EDM"),
    "variance_type": one_of(
        None,
        "fixed_small",
        "fixed_small_log",
        "fixed_large",
        "fixed_large_log",
        reason="a UNet that predicts variances has further channels",
    ),
    **unread("dynamic_thresholding_ratio", "sample_max_value", reason="belongs to thresholding, which is off"),
    **unread("flow_shift", "shift", "time_shift_type", reason="belongs to flow schedules, which are refused"),
    **unread(
        "algorithm_type",
        "disable_corrector",
        "noise_sampler_seed",
        "predict_x0",
        "skip_prk_steps",
        "solver_order",
        "solver_p",
        "solver_type",
        reason=_SOLVER,
    ),
}


def check_scheduler(config: Mapping[str, Any]) -> None:
    """Hold `scheduler_config.json` against what is known.

    Raises:
        FailedPreconditionError: The schedule is not variance-preserving or of an unknown class, a key has a value that
            is not supported, or an unknown key is switched on.
    """
    check_scheduler_class(SCHEDULER_FILE, config.get("_class_name"))
    check_config(SCHEDULER_FILE, config, _RULES)
    variants = [key for key in ("use_karras_sigmas", "use_exponential_sigmas", "use_lu_lambdas") if config.get(key)]
    if len(variants) > 1:
        raise unsupported(SCHEDULER_FILE, f"at most one of {' and '.join(variants)} may be true.")
    start, end = (filled(config)[key] for key in ("beta_start", "beta_end"))
    if config.get("trained_betas") is None and start > end:
        raise unsupported(SCHEDULER_FILE, f"beta_start {start} is above beta_end {end}; noise grows with timesteps.")
    betas = config.get("trained_betas")
    if betas is not None and len(betas) != filled(config)["num_train_timesteps"]:
        raise unsupported(
            SCHEDULER_FILE,
            f"trained_betas has {len(betas)} numbers, num_train_timesteps is {filled(config)['num_train_timesteps']}; "
            "both must be the same.",
        )


def check_scheduler_class(place: str, name: object) -> None:
    """Raise FailedPreconditionError where a class of schedulers is none of a variance-preserving process."""
    if isinstance(name, str) and name in _BETAS_BY_CLASS:
        return
    kind = ""
    if isinstance(name, str) and ("EDM" in name or name.startswith(("CosineDPM", "KarrasVe", "CMStochastic"))):
        kind = " It is an EDM schedule, whose latents and timesteps are scaled in another way."
    elif isinstance(name, str) and "Flow" in name:
        kind = " It is a flow schedule, whose latents go straight from noise to picture."
    elif isinstance(name, str) and "Sde" in name:
        kind = " It is a variance-exploding schedule."
    raise unsupported(
        place,
        f"scheduler class {'missing' if name is None else shown(name)} is not supported.{kind} Supported are the "
        f"variance-preserving ones: {', '.join(sorted(_BETAS_BY_CLASS))}.",
    )


def filled(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with the forward process that its class means where it says nothing."""
    return {"num_train_timesteps": 1000, **_BETAS_BY_CLASS[config["_class_name"]], **config}


def prediction_type(config: Mapping[str, Any]) -> str:
    """What the model predicts, `epsilon` or `v_prediction`."""
    return str(config.get("prediction_type", "epsilon"))


def clean_limit(config: Mapping[str, Any]) -> float:
    """What DDIM confines its prediction of x_0 to; infinite where it does not."""
    clips = config.get("clip_sample", config["_class_name"] in _CLIPS_BY_DEFAULT)
    return float(config.get("clip_sample_range", 1.0)) if clips else float("inf")
