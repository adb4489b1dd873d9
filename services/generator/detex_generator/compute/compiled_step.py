"""A denoising step compiled by inductor: the UNet that knows no concept, with our attention in it, and the solvers.

Keys and values of prompts, and what each row reads of them, are inputs of the compiled graph. So one compilation of a
size serves any mixture of concepts for good; nothing of a concept is compiled into it.
"""

from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from detex_diffusion.unet import KeyValueUNet
from detex_generator.compute.denoising_step import StepInputs, StepResults, denoising_step
from detex_generator.compute.pooled_key_values import PooledKeyValues
from detex_generator.ops.operation import Implementation
from detex_generator.ops.segmented_attention import PageLayout, segmented_attention_opaque

CompiledStep = Callable[[StepInputs, PooledKeyValues], StepResults]
"""A step of inputs and texts of one size; compiled when it is first called."""

_Layers = Mapping[str, tuple[Tensor, Tensor]]


class _TracedText:
    """What is read while a step is traced: as `PooledKeyValues`, but nothing is chosen, counted or locked."""

    def __init__(
        self,
        layers: _Layers,
        layout: PageLayout,
        log_weights: Mapping[int, Tensor],
        pooled_text: Tensor | None,
        implementation: Implementation,
    ) -> None:
        self.rows = layout.starts.shape[0]
        self.pooled_text = pooled_text
        self._layers = layers
        self._layout = layout
        self._log_weights = log_weights
        self._implementation = implementation

    def attend(self, layer: str, query: Tensor) -> Tensor:
        key, value = self._layers[layer]
        weights = self._log_weights.get(query.shape[2])
        positions_first = query.transpose(1, 2)
        attended = segmented_attention_opaque(positions_first, key, value, self._layout, weights, self._implementation)
        return attended.transpose(1, 2)


def _step(
    unet: KeyValueUNet,
    inputs: list[Tensor],
    layers: _Layers,
    layout: list[Tensor],
    log_weights: Mapping[int, Tensor],
    pooled_text: Tensor | None,
    count: int,
    blended: bool,
    implementation: Implementation,
) -> tuple[Tensor, Tensor, Tensor]:
    starts, lengths, segments, joint = layout
    pages = PageLayout(starts, lengths, segments, joint, count, blended)
    text = _TracedText(layers, pages, log_weights, pooled_text, implementation)
    results = denoising_step(unet, StepInputs(*inputs), text, Implementation.TORCH)
    return results.latents, results.clean, results.finite


def compiled_step(unet: KeyValueUNet, attention: Implementation, name: str) -> CompiledStep:
    """A step to be compiled for one size.

    Its first call compiles and raises what the compiler raises: there is no falling back in part, for a graph that
    breaks in the middle is slower than none.

    Args:
        unet: Without kernels of its own (`unet_kernels.install_kernels`), which would keep inductor from fusing.
        attention: By what segmented attention is computed.
        name: Tells this compilation from others, in letters, digits and underscores.
    """
    # Dynamo keeps what it compiled by code object, and takes later ones of one code object for recompilations. Each
    # size has a code object of its own: none is searched for among the others, none counts against their number.
    own = FunctionType(_step.__code__.replace(co_name=f"step_{name}"), globals())
    compiled: Any = torch.compile(own, fullgraph=True, dynamic=False)

    def step(inputs: StepInputs, text: PooledKeyValues) -> StepResults:
        layout = text.layout
        results = compiled(
            unet,
            inputs.tensors,
            dict(text.layers),
            [layout.starts, layout.lengths, layout.segments, layout.joint],
            dict(text.log_weights),
            text.pooled_text,
            layout.count,
            layout.blended,
            attention,
        )
        return StepResults(*results)

    return step
