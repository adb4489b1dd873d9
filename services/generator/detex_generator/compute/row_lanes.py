"""The cores of a CPU share a UNet pass by its rows: lanes that meet once per pass, not once per operation.

Where the operations of a pass are small, threads that share each of them spend more time on waking each other than
they save. So the rows of a pass are dealt to lanes first; what cores are left over share the operations of a lane.

Legend: R rows of a UNet pass, C latent channels, h and w latent height and width.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait

import torch
from torch import Tensor

from detex_diffusion.conditioning import KeyValueBatch, PromptKeyValues
from detex_diffusion.unet import KeyValueUNet

LEAST_ROWS = 4
"""Rows of a lane where there is more than one: with fewer, reading the weights once per lane costs what lanes save."""


LEAST_ACTIVATIONS = 32_768
"""Activations of the UNet's first layer for each core that shares the operations of a lane: with fewer, an operation
ends before a second core has woken up."""


def use_cores(cores: int) -> None:
    """Let the operations of torch in this thread run on so many cores from now on."""
    # A thread takes over the number of the process when it first asks, whenever that is; only then its own holds.
    if torch.get_num_threads() != cores:
        torch.set_num_threads(cores)


class RowLanes:
    """Threads that compute the rows of a UNet pass side by side; called by one thread, which is the first lane."""

    def __init__(self, cores: int) -> None:
        """Prepare.

        Args:
            cores: Cores of a pass, at least 1.
        """
        self._cores = cores
        self._pool = ThreadPoolExecutor(max(1, cores - 1), thread_name_prefix="row-lane")

    def stack(self, prompts: Sequence[PromptKeyValues]) -> list[KeyValueBatch]:
        """What the lanes read of the prompts of R rows, in their order."""
        lanes = max(1, min(self._cores, len(prompts) // LEAST_ROWS))
        each, more = divmod(len(prompts), lanes)
        texts, start = [], 0
        for lane in range(lanes):
            end = start + each + (lane < more)
            texts.append(KeyValueBatch.stack(prompts[start:end]))
            start = end
        return texts

    def predict(self, unet: KeyValueUNet, latents: Tensor, timesteps: Tensor, texts: Sequence[KeyValueBatch]) -> Tensor:
        """What a UNet predicts for R rows; call under `torch.inference_mode`.

        Args:
            unet: On the CPU.
            latents: (R, C, h, w), as `KeyValueUNet` takes them.
            timesteps: (R,).
            texts: As `stack` gives them.

        Returns:
            (R, C, h, w).
        """
        cores = self._cores // len(texts)
        if len(texts) == 1:
            return _predict(unet, cores, latents, timesteps, texts[0])
        sizes = [text.rows for text in texts]
        parts = list(zip(torch.split(latents, sizes), torch.split(timesteps, sizes), texts, strict=True))
        others = [self._pool.submit(_predict, unet, cores, *part) for part in parts[1:]]
        try:
            first = _predict(unet, cores, *parts[0])
        finally:
            wait(others)  # also where this lane fails: nobody may continue with weights that are still being read
        return torch.cat([first, *(other.result() for other in others)])

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(wait=False)


@torch.inference_mode()
def _predict(unet: KeyValueUNet, cores: int, latents: Tensor, timesteps: Tensor, text: KeyValueBatch) -> Tensor:
    rows, _, height, width = latents.shape
    activations = rows * height * width * int(unet.unet.config.block_out_channels[0])
    use_cores(max(1, min(cores, activations // LEAST_ACTIVATIONS)))
    return unet(latents, timesteps, text)
