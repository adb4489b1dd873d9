import numpy as np
import pytest
import torch
from PIL import Image

from detex_core.errors import FailedPreconditionError
from detex_diffusion.base_model import BaseModel
from detex_diffusion.latents import decode_latents, encode_images, initial_noise, to_images, to_pixels


def picture(seed: int, width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_noise_belongs_to_its_seed() -> None:
    noise = initial_noise(2**63 + 5, (4, 8, 8))
    assert noise.dtype == torch.float32
    assert torch.equal(noise, initial_noise(2**63 + 5, (1, 4, 8, 8))[0])
    assert torch.equal(noise, initial_noise(5, (4, 8, 8)))  # the lower 32 bits count
    assert not torch.equal(noise, initial_noise(6, (4, 8, 8)))


def test_pixels_and_pictures() -> None:
    original = picture(3, 20, 12)
    (back,) = to_images(to_pixels([original]))
    assert np.array_equal(np.asarray(back), np.asarray(original))
    (clipped,) = to_images(torch.tensor([-3.0, 0.0, 3.0]).view(1, 3, 1, 1))
    assert clipped.getpixel((0, 0)) == (0, 128, 255)
    grey = to_pixels([original.convert("L")])
    assert torch.equal(grey[:, 0], grey[:, 2])


def test_pictures_become_latents_and_pictures_again(base_model: BaseModel) -> None:
    pixels = to_pixels([picture(1, 24, 16), picture(2, 24, 16)])
    assert pixels.shape == (2, 3, 16, 24)
    assert (float(pixels.min()), float(pixels.max())) == (-1.0, 1.0)
    mode = encode_images(base_model.vae, pixels)
    assert mode.shape == (2, *base_model.latent_shape(16, 24))
    with torch.no_grad():
        posterior = base_model.vae.encode(pixels).latent_dist
    torch.testing.assert_close(mode, posterior.mean * base_model.vae.config.scaling_factor)
    samples = [encode_images(base_model.vae, pixels, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(samples[0], samples[1])
    assert not torch.equal(samples[0], samples[2])
    with torch.no_grad():
        wanted = base_model.vae.decode(posterior.mean).sample
    torch.testing.assert_close(decode_latents(base_model.vae, mode), wanted, rtol=1e-5, atol=1e-5)


def test_pictures_that_overflow_are_an_error(base_model: BaseModel) -> None:
    with pytest.raises(FailedPreconditionError, match="float32 or bfloat16"):
        decode_latents(base_model.vae, torch.full((1, 4, 8, 8), float("inf")))
