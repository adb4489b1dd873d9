"""Passes of a frozen base model, forward and backward, captured once as CUDA graphs and replayed from then on.

A step of a small batch launches some thousands of kernels, and launching them takes longer than running them. A graph
replays those of a whole pass by one launch, on tensors that stay where they are. Text encoder and UNet are captured
apart: what lies between them, words and deltas, differs from learner to learner.

Legend: B rows, U prompts, C latent channels, (h, h) latent size, T text tokens, W words, E text width, H heads, D head
dim, (n, n) size of an attention map.
"""

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import KeyValueBatch
from detex_diffusion.text_conditioning import EncodedText, TextConditioning
from detex_diffusion.unet import KeyValueUNet

_log = logging.getLogger(__name__)

MOST_GRAPHS = 4
"""Of text encoder and UNet each, the least recently used going first; each keeps the memory of its activations."""

_USES_BEFORE_CAPTURE = 2
"""A shape that is not seen again, as that of a measurement, is not worth a capture."""

_WORDS = 16
"""Words of all prompts together are filled up to a multiple of this."""

Tensors = tuple[Tensor, ...]
Pass = Callable[..., Tensors]
Capture = Callable[[Pass, Tensors], Pass]
"""Makes a pass that is run again and again of one and of arguments whose shapes and need of gradients are its own."""


def cuda_capture(run: Pass, arguments: Tensors) -> Pass:
    """Capture a pass and its gradients on the current device, for one thread.

    What a replay gives is overwritten by the next: it is to be used up before.
    """
    # cuBLAS keeps a workspace for each stream, and captures take turns on one stream: each graph is to have its own.
    torch._C._cuda_clearCublasWorkspaces()
    captured: Pass = torch.cuda.make_graphed_callables(run, arguments, allow_unused_input=True)  # type: ignore[assignment]
    torch._C._cuda_clearCublasWorkspaces()
    return captured


class GraphedPasses:
    """Text encoder and UNet of one frozen base model; belongs to the thread that trains."""

    def __init__(self, capture: Capture = cuda_capture) -> None:
        """Nothing is captured yet."""
        self._capture = capture
        self._captured: dict[str, OrderedDict[object, Pass]] = {"unet": OrderedDict(), "text": OrderedDict()}
        self._uses: Counter[object] = Counter()
        self._is_broken = False

    @property
    def captured(self) -> int:
        """Graphs that are kept."""
        return sum(len(graphs) for graphs in self._captured.values())

    def predict(
        self, unet: KeyValueUNet, latents: Tensor, timesteps: Tensor, text: KeyValueBatch, map_layers: Sequence[str]
    ) -> tuple[Tensor, Mapping[str, Tensor]] | None:
        """As `row_lanes.predict`; None where the pass is to be run as it is."""
        if text.mask is not None or text.regional is not None:
            return None
        layers = tuple(text.layers)
        tensors = [each for name in layers for each in text.layers[name]]
        pooled = [] if text.pooled_text is None else [text.pooled_text]

        def run(latents: Tensor, timesteps: Tensor, *given: Tensor) -> Tensors:
            pairs = zip(given[0 : 2 * len(layers) : 2], given[1 : 2 * len(layers) : 2], strict=True)
            pooled_text = given[-1] if pooled else None
            batch = KeyValueBatch(dict(zip(layers, pairs, strict=True)), pooled_text=pooled_text)
            if not map_layers:
                return (unet(latents, timesteps, batch),)
            prediction, maps = unet.with_attention(latents, timesteps, batch, map_layers)
            return prediction, *(maps[layer] for layer in map_layers)

        found = self._replayed("unet", (layers, tuple(map_layers)), run, (latents, timesteps, *tensors, *pooled))
        return None if found is None else (found[0], dict(zip(map_layers, found[1:], strict=True)))

    def encode(
        self, text: TextConditioning, ids: Tensor, attention_mask: Tensor, rows: Tensor, words: Tensor, ends: Tensor
    ) -> EncodedText | None:
        """As `TextConditioning.encode`; None where the pass is to be run as it is.

        Prompts are filled up to the next power of two, and words to a multiple of 16: their numbers change from step to
        step. Rows of a pass do not see each other.
        """
        prompts, count = ids.shape[0], 1 << max(0, ids.shape[0] - 1).bit_length()
        ids, attention_mask, rows, ends = (_filled(each, count) for each in (ids, attention_mask, rows, ends))
        words = _filled(words, -(-words.shape[0] // _WORDS) * _WORDS)

        def run(ids: Tensor, attention_mask: Tensor, rows: Tensor, words: Tensor, ends: Tensor) -> Tensors:
            encoded = text.encode(ids, attention_mask, rows, words, ends)
            return (encoded.hidden,) if encoded.pooled is None else (encoded.hidden, encoded.pooled)

        found = self._replayed("text", None, run, (ids, attention_mask, rows, words, ends))
        if found is None:
            return None
        hidden, *pooled = (each[:prompts] for each in found)
        return EncodedText(hidden, pooled[0] if pooled else None)

    def _replayed(self, part: str, what: object, run: Pass, arguments: Tensors) -> Tensors | None:
        """The results of a pass by its graph, which is captured where the shapes have come before; else None."""
        if self._is_broken or not torch.is_grad_enabled() or not any(each.requires_grad for each in arguments):
            return None
        key = (what, *((each.shape, each.dtype, each.requires_grad) for each in arguments))
        graphs = self._captured[part]
        replay = graphs.get(key)
        if replay is None:
            self._uses[(part, key)] += 1
            if self._uses[(part, key)] <= _USES_BEFORE_CAPTURE:
                return None
            try:
                replay = self._capture(run, tuple(_like(each) for each in arguments))
            except RuntimeError as error:
                # Out of memory, or an operation that cannot be captured; training goes on without graphs.
                self._is_broken = True
                for each in self._captured.values():
                    each.clear()
                reason = str(error).strip().splitlines() or [type(error).__name__]
                _log.warning("steps of training run without CUDA graphs from here on: %s", reason[0][:200])
                return None
            while len(graphs) >= MOST_GRAPHS:
                graphs.popitem(last=False)
            graphs[key] = replay
        graphs.move_to_end(key)
        return replay(*arguments)


_PASSES: WeakKeyDictionary[nn.Module, GraphedPasses] = WeakKeyDictionary()
"""By UNet and not within it: copies of a UNet, which are trained themselves, are not captured."""


def graph_passes(base_model: BaseModel, capture: Capture = cuda_capture) -> GraphedPasses:
    """From now on, replay the passes with gradients of a base model that stays frozen."""
    passes = GraphedPasses(capture)
    _PASSES[base_model.unet] = passes
    return passes


def passes_of(unet: nn.Module) -> GraphedPasses | None:
    """The graphs of the base model with a UNet; None where its passes are run as they are."""
    return _PASSES.get(unet)


def _filled(tensor: Tensor, count: int) -> Tensor:
    """The tensor with as many rows as wanted, by repeating its first; what fills it up gets no gradient of use."""
    missing = count - tensor.shape[0]
    return tensor if missing <= 0 else torch.cat([tensor, tensor[:1].detach().expand(missing, *tensor.shape[1:])])


def _like(tensor: Tensor) -> Tensor:
    """Memory of its own for what a graph reads, with contents that a pass can be run on."""
    held: Any = tensor.detach().clone(memory_format=torch.contiguous_format)
    return held.requires_grad_(tensor.requires_grad)  # type: ignore[no-any-return]
