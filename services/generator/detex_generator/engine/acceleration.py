"""What a GPU gets beyond a CPU: kernels, channels-last weights, CUDA graphs."""

import threading

import torch
from diffusers import UNet2DConditionModel

from detex_diffusion.unet import KeyValueUNet
from detex_generator.engine.graphed_steps import CudaCapture, GraphedSteps, eager
from detex_generator.kernels.choice import KernelChoice
from detex_generator.kernels.unet_kernels import install_kernels, use_channels_last


class Acceleration:
    """Makes the steps of UNets, each prepared once; safe to use from several threads."""

    def __init__(self, choice: KernelChoice, device: torch.device, *, cuda_graphs: bool) -> None:
        """Prepare.

        Args:
            choice: What computes each operation.
            device: Where UNets are.
            cuda_graphs: Whether steps are captured, on a GPU.
        """
        self._choice = choice
        self._device = device
        self._cuda_graphs = cuda_graphs and device.type == "cuda"
        self._lock = threading.Lock()
        self._kept: dict[int, GraphedSteps] = {}

    def steps(self, unet: UNet2DConditionModel, *, keep: bool) -> GraphedSteps:
        """The steps of a UNet.

        Args:
            unet: Which; kernels are put into it.
            keep: Whether its graphs are kept for good, as those of base models are; otherwise as long as the answer is.
        """
        with self._lock:
            found = self._kept.get(id(unet))
            if found is None:
                install_kernels(unet, self._choice)
                use_channels_last(unet)
                found = GraphedSteps(KeyValueUNet(unet), self._choice, CudaCapture() if self._cuda_graphs else eager)
                if keep:
                    self._kept[id(unet)] = found
            return found
