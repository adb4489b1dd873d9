"""Denoising steps on a GPU: captured once for each size, replayed from then on.

A pass over a UNet of Stable Diffusion launches about a thousand kernels, and for small batches launching them takes
longer than running them. A CUDA graph replays all of them by one launch, on tensors that stay where they are; so inputs
are copied into those of the graph, and batches are filled up to one of few sizes. What fills them up changes nothing:
rows are independent, and keys and values of rows that are not there have no pages.

Legend: N images, R rows of the UNet pass.
"""

import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from detex_diffusion.conditioning import PromptKeyValues
from detex_diffusion.unet import KeyValueUNet
from detex_generator.compute.capture import Capture, Step
from detex_generator.compute.compiled_step import CompiledStep
from detex_generator.compute.denoising_step import StepInputs, StepResults, denoising_step
from detex_generator.compute.device_errors import spoils_device
from detex_generator.compute.pooled_key_values import PooledKeyValues, PoolSize
from detex_generator.compute.step_compiler import StepCompiler
from detex_generator.ops.choice import KernelChoice
from detex_generator.ops.operation import Operation

MOST_GRAPHS = 32
"""Graphs that are kept, the least recently used going first; each has memory of its own for its inputs."""

SizeKey = tuple[int, torch.Size, PoolSize]


def rounded_up(number: int) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, 32 and so on: at most a third of a batch is filled up."""
    power = 1 << max(0, number - 1).bit_length()
    return power * 3 // 4 if power >= 4 and number <= power * 3 // 4 else power


@dataclass(eq=False)
class _Graph:
    """A captured step with its inputs.

    Attributes:
        inputs: Read by the graph.
        text: Read by the graph.
        replay: Runs it.
        holds: The prompts whose text was copied in last; kept alive by others. None where the text is nobody's.
        captured: Whether it is replayed; otherwise it is launched again each time.
        compiled: Whether the step is a compiled one.
    """

    inputs: StepInputs
    text: PooledKeyValues
    replay: Step
    holds: tuple[weakref.ref[PromptKeyValues], ...] | None = None
    captured: bool = False
    compiled: bool = False

    def reads(self, prompts: Sequence[PromptKeyValues]) -> bool:
        """Whether its text is that of the very same prompts in the same order."""
        held = self.holds
        if held is None or len(held) != len(prompts):
            return False
        return all(known() is prompt for known, prompt in zip(held, prompts, strict=True))


@dataclass(frozen=True, eq=False)
class Compilation:
    """How steps of a UNet are compiled.

    Attributes:
        compiler: Compiles in the background.
        unet: The same weights without kernels.
    """

    compiler: StepCompiler
    unet: KeyValueUNet


class GraphedSteps:
    """Steps of one UNet; belongs to the thread of the step loop, and is to be called under `torch.inference_mode`."""

    def __init__(
        self,
        unet: KeyValueUNet,
        choice: KernelChoice,
        capture: Capture,
        most_graphs: int = MOST_GRAPHS,
        compilation: Compilation | None = None,
    ) -> None:
        """Nothing is captured yet.

        Args:
            unet: With the kernels that were chosen.
            choice: By what it computes.
            capture: Makes replays.
            most_graphs: Graphs that are kept.
            compilation: How steps are compiled; None where they are not.
        """
        self._unet = unet
        self._choice = choice
        self._capture = capture
        self._most_graphs = most_graphs
        self._compilation = compilation
        self._graphs: OrderedDict[SizeKey, _Graph] = OrderedDict()
        # By number of images, number of rows and size of the latents, so that batches that take turns share nothing.
        self._last: dict[tuple[int, int, torch.Size], SizeKey] = {}

    @property
    def compiles(self) -> bool:
        """Whether steps are compiled."""
        return self._compilation is not None

    @property
    def captured(self) -> int:
        """Graphs that are kept."""
        return len(self._graphs)

    @property
    def compiled(self) -> int:
        """Those of them that replay a compiled step."""
        return sum(graph.compiled for graph in self._graphs.values())

    def __call__(self, inputs: StepInputs, prompts: Sequence[PromptKeyValues]) -> StepResults:
        """One step of N images; changes no input.

        Args:
            inputs: Of N images.
            prompts: Of R rows, in their order.

        Raises:
            torch.cuda.OutOfMemoryError: The device has no memory left for a batch of this size.
        """
        count = len(inputs.latents)
        images = rounded_up(count)
        rows = rounded_up(max(len(prompts), images))
        filled = inputs.filled(images, rows)
        graph = self._graph(filled, prompts, rows)
        for held, given in zip(graph.inputs.tensors, filled.tensors, strict=True):
            held.copy_(given)
        return graph.replay().first(count)

    def expect(self, inputs: StepInputs, prompts: Sequence[PromptKeyValues]) -> None:
        """Have steps of this size compiled before any is asked for; does nothing where none are compiled.

        Args:
            inputs: Of N images, whatever they hold.
            prompts: Of R rows, whatever they hold.
        """
        if self._compilation is None:
            return
        images = rounded_up(len(inputs.latents))
        rows = rounded_up(max(len(prompts), images))
        text = PooledKeyValues.of_prompts(prompts, self._choice, rows=rows, rounded=True)
        own = inputs.filled(images, rows).cloned()  # as those of a graph are
        self._compiled(own, text, uses=self._compilation.compiler.least_uses)

    def rest(self, shape: torch.Size) -> None:
        """Nothing to forget: graphs stay for those to come, and their texts take the same memory whatever they hold."""

    def clear(self) -> None:
        """Forget all graphs and give their memory back."""
        self._graphs.clear()
        self._last.clear()

    def _graph(self, inputs: StepInputs, prompts: Sequence[PromptKeyValues], rows: int) -> _Graph:
        """The graph of a size with the text of these prompts in it, which is pooled only where it is not there yet."""
        place = (len(inputs.latents), rows, inputs.latents.shape[1:])
        key = self._last.get(place)
        graph = None if key is None else self._graphs.get(key)
        if key is None or graph is None or not graph.reads(prompts):
            text = PooledKeyValues.of_prompts(prompts, self._choice, rows=rows, rounded=True)
            key = _key(inputs, text)
            graph = self._with_text(key, inputs, text)
            graph.holds = tuple(weakref.ref(prompt) for prompt in prompts)
            self._last[place] = key
        self._graphs.move_to_end(key)
        if not graph.compiled and (compiled := self._compiled(graph.inputs, graph.text)) is not None:
            self._take_compiled(key, graph, compiled)
        elif not graph.captured:
            self._try_capture(graph, graph.replay)
        return graph

    def _with_text(self, key: SizeKey, inputs: StepInputs, text: PooledKeyValues) -> _Graph:
        graph = self._graphs.get(key)
        if graph is None:
            graph = self._new(inputs.cloned(), text)
            while len(self._graphs) >= self._most_graphs:
                gone, _ = self._graphs.popitem(last=False)
                self._last = {place: known for place, known in self._last.items() if known != gone}
            self._graphs[key] = graph
            return graph
        graph.holds = None  # until all of it is there
        for held, given in zip(graph.text.tensors, text.tensors, strict=True):
            held.copy_(given)
        return graph

    def _new(self, inputs: StepInputs, text: PooledKeyValues) -> _Graph:
        solver_implementation = self._choice.take(Operation.GUIDED_SOLVER_STEP)

        def step() -> StepResults:
            return denoising_step(self._unet, inputs, text, solver_implementation)

        return _Graph(inputs, text, step)

    def _try_capture(self, graph: _Graph, step: Step) -> None:
        """Capture a step, unless something is being compiled: that would disturb it, and this comes again."""
        if self._compilation is None:
            graph.replay, graph.captured = self._capture(step), True
            return
        if self._compilation.compiler.device_lock.acquire(blocking=False):
            try:
                graph.replay, graph.captured = self._capture(step), True
            finally:
                self._compilation.compiler.device_lock.release()

    def _compiled(self, inputs: StepInputs, text: PooledKeyValues, uses: int = 1) -> CompiledStep | None:
        if self._compilation is None:
            return None
        attention = self._choice.decisions[Operation.SEGMENTED_ATTENTION].implementation
        unet, key = self._compilation.unet, _key(inputs, text)
        return self._compilation.compiler.use(unet, attention, key, inputs, text, uses)

    def _take_compiled(self, key: SizeKey, graph: _Graph, compiled: CompiledStep) -> None:
        """Replay the compiled step from now on, or give it up where it does not run."""
        assert self._compilation is not None  # noqa: S101
        before = graph.replay, graph.captured
        graph.captured = False
        try:
            self._try_capture(graph, lambda: compiled(graph.inputs, graph.text))
        except Exception as error:
            if spoils_device(error):
                raise
            self._compilation.compiler.refuse(self._compilation.unet, key, error)
        graph.compiled = graph.captured
        if not graph.captured:
            graph.replay, graph.captured = before


def _key(inputs: StepInputs, text: PooledKeyValues) -> SizeKey:
    return len(inputs.latents), inputs.latents.shape[1:], text.size
