"""What a GPU gets beyond a CPU: kernels, channels-last weights, CUDA graphs."""

import logging
import threading

import torch

from detex_diffusion.unet import KeyValueUNet
from detex_generator.compute.attention_order import take_fastest_attention
from detex_generator.compute.capture import CudaCapture, eager
from detex_generator.compute.fused_projections import fuse_projections
from detex_generator.compute.graphed_steps import Compilation, GraphedSteps
from detex_generator.compute.plain_steps import PlainSteps, Steps
from detex_generator.compute.step_compiler import StepCompiler
from detex_generator.compute.unet_kernels import install_kernels, over_same_weights, use_channels_last
from detex_generator.ops.choice import KernelChoice
from detex_generator.ops.operation import Operation

_logger = logging.getLogger(__name__)


class Acceleration:
    """Makes the steps of UNets, each prepared once; safe to use from several threads."""

    def __init__(
        self, choice: KernelChoice, device: torch.device, *, cuda_graphs: bool, compiler: StepCompiler | None = None
    ) -> None:
        """Prepare.

        Args:
            choice: What computes each operation.
            device: Where UNets are.
            cuda_graphs: Whether steps are captured, on a GPU.
            compiler: Compiles the steps of UNets that are kept; None where none are.
        """
        take_fastest_attention(device)
        self._choice = choice
        self._device = device
        self._compiler = compiler
        # On a CPU the reference reads pools, for a compiled step that is asked for.
        on_cpu = device.type == "cpu" and compiler is not None
        self._pooled = on_cpu or choice.uses(Operation.SEGMENTED_ATTENTION)
        self._cuda_graphs = cuda_graphs and device.type == "cuda"
        if self._cuda_graphs and not self._pooled:
            _logger.info("No CUDA graphs: texts of all lengths share them only by the kernel of segmented attention")
        self._lock = threading.Lock()
        self._kept: dict[int, Steps] = {}

    def steps(self, unet: KeyValueUNet, *, keep: bool) -> Steps:
        """The steps of a UNet.

        Args:
            unet: Which; kernels are put into it.
            keep: Whether its graphs are kept for good, as those of base models are; otherwise as long as the answer is.
        """
        with self._lock:
            found = self._kept.get(id(unet.unet))
            if found is None:
                use_channels_last(unet.unet)
                compilation = self._compilation(unet) if keep else None
                install_kernels(unet.unet, self._choice)
                found = self._new(unet, compilation)
                if keep:
                    self._kept[id(unet.unet)] = found
            return found

    def close(self) -> None:
        """Compile nothing further."""
        if self._compiler is not None:
            self._compiler.close()

    def _compilation(self, unet: KeyValueUNet) -> Compilation | None:
        if self._compiler is None or not self._pooled:
            return None
        plain = over_same_weights(unet.unet)
        fuse_projections(plain)
        return Compilation(self._compiler, unet.over(plain))

    def _new(self, unet: KeyValueUNet, compilation: Compilation | None) -> Steps:
        if not self._pooled:
            return PlainSteps(unet, self._choice)
        capture = CudaCapture() if self._cuda_graphs else eager
        return GraphedSteps(unet, self._choice, capture, compilation=compilation)
