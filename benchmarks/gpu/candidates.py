"""Compiled steps of detex beside the candidates of `benchmarks.full_size`, on the same weights."""

import torch

from benchmarks.full_size.architectures import FullSize
from benchmarks.full_size.candidates import Bench, Run, Workload
from detex_diffusion.unet import KeyValueUNet
from detex_generator.compute.capture import CudaCapture, eager
from detex_generator.compute.fused_projections import fuse_projections
from detex_generator.compute.graphed_steps import Compilation, GraphedSteps
from detex_generator.compute.step_compiler import StepCompiler
from detex_generator.compute.unet_kernels import over_same_weights

LONGEST_COMPILATION_SECONDS = 600.0


class CompiledBench(Bench):
    """A UNet of full size with the ways to step it, compiled ones among them.

    Attributes:
        compiler: Compiles the steps of detex.
        compiled_steps: Of detex, compiled, as the service takes them.
        unfused_steps: The same without `fuse_projections`.
        compiled_peer: The UNet of diffusers, compiled; one concept's.
    """

    def __init__(self, architecture: FullSize, device: torch.device, dtype: torch.dtype, kernels: str = "auto") -> None:
        """Draw the weights; nothing is compiled yet."""
        super().__init__(architecture, device, dtype, kernels)
        self.compiler = StepCompiler(device, least_uses=1)
        fused = over_same_weights(self.plain)
        fuse_projections(fused)
        self.compiled_steps = self._steps(self.unet.over(fused))
        self.unfused_steps = self._steps(self.unet.over(over_same_weights(self.plain)))
        self.compiled_peer = torch.compile(over_same_weights(self.plain), mode="reduce-overhead", dynamic=False)

    def detex_compiled(self, steps: GraphedSteps, workload: Workload) -> Run:
        """Steps of the engine, compiled; compiles now.

        Args:
            steps: `compiled_steps` or `unfused_steps`.
            workload: What they read.

        Raises:
            RuntimeError: They could not be compiled.
        """
        before = self.compiler.compiled
        run = self.detex(steps, workload)
        run()
        self.compiler.wait(LONGEST_COMPILATION_SECONDS)
        if self.compiler.compiled == before:
            raise RuntimeError("the step was not compiled; the log says why")
        run()
        return run

    def _steps(self, unet: KeyValueUNet) -> GraphedSteps:
        capture = CudaCapture() if self.device.type == "cuda" else eager
        return GraphedSteps(self.unet, self.choice, capture, compilation=Compilation(self.compiler, unet))

    def diffusers_compiled(self, workload: Workload) -> Run:
        """Steps of diffusers, compiled; compiles when it is first run."""
        return self.diffusers(self.compiled_peer, workload)
