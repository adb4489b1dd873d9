"""Compiled steps of detex beside the candidates of `benchmarks.full_size`, on the same weights."""

import torch

from benchmarks.full_size.architectures import FullSize
from benchmarks.full_size.candidates import Bench, Run, Workload
from detex_generator.engine.graphed_steps import Compilation, CudaCapture, GraphedSteps, eager
from detex_generator.engine.step_compiler import StepCompiler
from detex_generator.kernels.unet_kernels import over_same_weights

LONGEST_COMPILATION_SECONDS = 600.0


class CompiledBench(Bench):
    """A UNet of full size with the ways to step it, compiled ones among them.

    Attributes:
        compiler: Compiles the steps of detex.
        compiled_steps: Of detex, compiled.
        compiled_peer: The UNet of diffusers, compiled; one concept's.
    """

    def __init__(self, architecture: FullSize, device: torch.device, dtype: torch.dtype, kernels: str = "auto") -> None:
        """Draw the weights; nothing is compiled yet."""
        super().__init__(architecture, device, dtype, kernels)
        self.compiler = StepCompiler(device, least_uses=1)
        capture = CudaCapture() if device.type == "cuda" else eager
        compilation = Compilation(self.compiler, self.unet.over(over_same_weights(self.plain)))
        self.compiled_steps = GraphedSteps(self.unet, self.choice, capture, compilation=compilation)
        self.compiled_peer = torch.compile(over_same_weights(self.plain), mode="reduce-overhead", dynamic=False)

    def detex_compiled(self, workload: Workload) -> Run:
        """Steps of the engine, compiled; compiles now.

        Raises:
            RuntimeError: They could not be compiled.
        """
        before = self.compiler.compiled
        run = self.detex(self.compiled_steps, workload)
        run()
        self.compiler.wait(LONGEST_COMPILATION_SECONDS)
        if self.compiler.compiled == before:
            raise RuntimeError("the step was not compiled; the log says why")
        run()
        return run

    def diffusers_compiled(self, workload: Workload) -> Run:
        """Steps of diffusers, compiled; compiles when it is first run."""
        return self.diffusers(self.compiled_peer, workload)
