import diffusers
import pytest
import torch

from detex_core.errors import FailedPreconditionError
from detex_diffusion.noise_schedule import NoiseSchedule, PredictionType
from tests.tiny_models import DDIM_VELOCITY, DDIM_VELOCITY_ZERO_SNR, PNDM_EPSILON

CONFIGS = [PNDM_EPSILON, DDIM_VELOCITY, DDIM_VELOCITY_ZERO_SNR]
TIMESTEPS = torch.tensor([0, 1, 300, 998, 999])


def clean_and_noise() -> tuple[torch.Tensor, torch.Tensor]:
    clean, noise = torch.randn(2, 5, 4, 3, 6, generator=torch.Generator().manual_seed(0))
    return clean, noise


@pytest.mark.parametrize("config", CONFIGS)
def test_noising_and_targets_are_those_of_diffusers(config: dict) -> None:
    schedule = NoiseSchedule.from_config(config)
    peer = diffusers.DDPMScheduler.from_config(dict(config))
    clean, noise = clean_and_noise()
    torch.testing.assert_close(schedule.add_noise(clean, noise, TIMESTEPS), peer.add_noise(clean, noise, TIMESTEPS))
    wanted = noise if "prediction_type" not in config else peer.get_velocity(clean, noise, TIMESTEPS)
    torch.testing.assert_close(schedule.target(clean, noise, TIMESTEPS), wanted)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_perfect_prediction_gives_back_clean_latents_and_noise(config: dict) -> None:
    schedule = NoiseSchedule.from_config(config)
    clean, noise = clean_and_noise()
    noisy = schedule.add_noise(clean, noise, TIMESTEPS)
    target = schedule.target(clean, noise, TIMESTEPS)
    torch.testing.assert_close(schedule.predicted_clean(noisy, target, TIMESTEPS), clean, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(schedule.predicted_noise(noisy, target, TIMESTEPS), noise, atol=2e-5, rtol=1e-4)


def test_min_snr_weights_follow_the_paper() -> None:
    epsilon, velocity = NoiseSchedule.from_config(PNDM_EPSILON), NoiseSchedule.from_config(DDIM_VELOCITY)
    alpha = epsilon.alphas_cumprod[TIMESTEPS].double()
    snr = alpha / (1 - alpha)
    torch.testing.assert_close(epsilon.min_snr_weights(TIMESTEPS, 5.0).double(), snr.clamp(max=5) / snr)
    torch.testing.assert_close(velocity.min_snr_weights(TIMESTEPS, 5.0).double(), snr.clamp(max=5) / (snr + 1))


def test_min_snr_weights_are_finite_at_zero_terminal_snr() -> None:
    velocity = NoiseSchedule.from_config(DDIM_VELOCITY_ZERO_SNR)
    assert velocity.alphas_cumprod[-1] == 0
    assert velocity.min_snr_weights(torch.tensor([999])).item() == 0
    config = {**PNDM_EPSILON, "_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True}
    assert NoiseSchedule.from_config(config).min_snr_weights(torch.tensor([999])).item() == 1


def test_clipping_is_what_the_class_of_the_config_does() -> None:
    bare = {"beta_schedule": "scaled_linear"}
    assert NoiseSchedule.from_config({**bare, "_class_name": "EulerDiscreteScheduler"}).clean_limit == float("inf")
    assert NoiseSchedule.from_config({**bare, "_class_name": "DDIMScheduler"}).clean_limit == 1.0
    assert NoiseSchedule.from_config(PNDM_EPSILON).clean_limit == float("inf")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscreteScheduler"),
        ({"_class_name": "NoSuchScheduler"}, "NoSuchScheduler"),
        ({"_class_name": None}, "scheduler class"),
        ({"prediction_type": "sample"}, "prediction_type 'sample'"),
        ({"thresholding": True}, "thresholding"),
        ({"beta_schedule": "unheard-of"}, "scheduler_config.json: beta_schedule 'unheard-of' is not supported"),
        ({"beta_start": "a lot"}, "scheduler_config.json: beta_start 'a lot' is not supported"),
    ],
)
def test_schedules_of_another_kind_are_refused(change: dict, sentence: str) -> None:
    with pytest.raises(FailedPreconditionError, match=sentence):
        NoiseSchedule.from_config({**PNDM_EPSILON, **change})


def test_prediction_types() -> None:
    assert NoiseSchedule.from_config(PNDM_EPSILON).prediction_type is PredictionType.EPSILON
    assert NoiseSchedule.from_config(DDIM_VELOCITY).prediction_type is PredictionType.VELOCITY
    assert NoiseSchedule.from_config(DDIM_VELOCITY).training_timesteps == 1000
