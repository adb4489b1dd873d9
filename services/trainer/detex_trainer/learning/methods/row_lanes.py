"""The cores of a CPU share a UNet pass by its rows, forward and backward: lanes that meet once per pass.

Where the operations of a pass are small, threads that share each of them spend more time on waking each other than they
save. So the rows of a pass are dealt to lanes first; what cores are left over share the operations of a lane. What
comes of a pass depends on the number of threads by rounding alone, and for one number of threads on nothing else.

Legend: B rows, C latent channels, (h, h) latent size, T text tokens, H heads, D head dim, (n, n) size of an attention
map.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from detex_diffusion.conditioning import KeyValueBatch
from detex_diffusion.unet import KeyValueUNet

LEAST_ROWS = 4
"""Rows of a lane where there is more than one: with fewer, reading the weights in each lane costs more than lanes save.
On two idle cores a step of four rows takes 54 to 64 ms in two lanes, 46 to 50 ms where threads share operations."""

_MOST_LANES = 64
_POOL = ThreadPoolExecutor(_MOST_LANES, thread_name_prefix="row-lane")  # starts a thread when it is first needed

_Result = TypeVar("_Result")


class _Lane(NamedTuple):
    """The graph of a lane's rows.

    Attributes:
        inputs: Keys and values by layer, leaves of the graph.
        outputs: The prediction and the attention maps.
    """

    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]


class _Pass(torch.autograd.Function):
    """From keys and values (B, H, T, D) by layer to the prediction and the attention maps by layer."""

    @staticmethod
    def forward(ctx: Any, lanes: Sequence[Callable[..., Sequence[Tensor]]], sizes: list[int], *texts: Tensor) -> Any:
        wanted = [each.requires_grad for each in texts]
        dealt = zip(*(torch.split(each.detach(), sizes) for each in texts), strict=True)

        def run(predict: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> _Lane:
            leaves = [each.requires_grad_(want) for each, want in zip(inputs, wanted, strict=True)]
            with torch.set_grad_enabled(any(wanted)):
                return _Lane(leaves, predict(leaves))

        ctx.lanes = _side_by_side([(run, lane, inputs) for lane, inputs in zip(lanes, dealt, strict=True)])
        ctx.sizes, ctx.wanted = sizes, wanted
        return tuple(torch.cat([each.detach() for each in parts]) for parts in zip(*_outputs(ctx.lanes), strict=True))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        lanes, ctx.lanes = ctx.lanes, None
        dealt = zip(*(torch.split(each, ctx.sizes) for each in gradients), strict=True)

        def differentiate(lane: _Lane, given: Sequence[Tensor]) -> list[Tensor]:
            wanted = [each for each in lane.inputs if each.requires_grad]
            outputs = [(out, gradient) for out, gradient in zip(lane.outputs, given, strict=True) if out.requires_grad]
            return list(
                torch.autograd.grad(
                    [out for out, _ in outputs], wanted, [gradient for _, gradient in outputs], materialize_grads=True
                )
            )

        parts = _side_by_side([(differentiate, lane, given) for lane, given in zip(lanes, dealt, strict=True)])
        found = iter([torch.cat(each) for each in zip(*parts, strict=True)])
        return None, None, *(next(found) if want else None for want in ctx.wanted)


def predict(
    unet: KeyValueUNet, latents: Tensor, timesteps: Tensor, text: KeyValueBatch, map_layers: Sequence[str]
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """What a UNet predicts and attends to, with as many lanes as there are threads and rows for; differentiable.

    Args:
        unet: Whose weights are not trained where there is to be more than one lane.
        latents: (B, C, h, h).
        timesteps: (B,).
        text: Of B rows.
        map_layers: Cross-attention layers whose attention maps are wanted.

    Returns:
        The prediction (B, C, h, h), and by layer the maps (B, T, n, n).
    """

    def run(latents: Tensor, timesteps: Tensor, text: KeyValueBatch) -> tuple[Tensor, Mapping[str, Tensor]]:
        if map_layers:
            return unet.with_attention(latents, timesteps, text, map_layers)
        return unet(latents, timesteps, text), {}

    sizes = _lane_sizes(latents, unet)
    simple = text.mask is None and text.regional is None and text.pooled_text is None
    if len(sizes) == 1 or not simple or any(each.requires_grad for each in unet.unet.parameters()):
        return run(latents, timesteps, text)

    def lane(latents: Tensor, timesteps: Tensor) -> Callable[[Sequence[Tensor]], Sequence[Tensor]]:
        def of(texts: Sequence[Tensor]) -> Sequence[Tensor]:
            pairs = zip(texts[::2], texts[1::2], strict=True)
            prediction, maps = run(latents, timesteps, KeyValueBatch(dict(zip(text.layers, pairs, strict=True))))
            return [prediction, *(maps[layer] for layer in map_layers)]

        return of

    lanes = [lane(*part) for part in zip(torch.split(latents, sizes), torch.split(timesteps, sizes), strict=True)]
    texts = [each for pair in text.layers.values() for each in pair]
    prediction, *maps = _Pass.apply(lanes, sizes, *texts)  # type: ignore[no-untyped-call]
    return prediction, dict(zip(map_layers, maps, strict=True))


def _lane_sizes(latents: Tensor, unet: KeyValueUNet) -> list[int]:
    rows = latents.shape[0]
    lanes = 1
    if latents.device.type == "cpu":
        lanes = max(1, min(torch.get_num_threads(), rows // LEAST_ROWS, _MOST_LANES))
    each, more = divmod(rows, lanes)
    return [each + (lane < more) for lane in range(lanes)]


def _outputs(lanes: Sequence[_Lane]) -> list[Sequence[Tensor]]:
    return [lane.outputs for lane in lanes]


def _side_by_side(tasks: Sequence[tuple[Callable[..., _Result], Any, Any]]) -> list[_Result]:
    """The results of tasks, the first of which this thread does; the cores are shared out among them."""
    threads = torch.get_num_threads()
    cores = max(1, threads // len(tasks))

    def run(task: tuple[Callable[..., _Result], Any, Any]) -> _Result:
        # A thread takes over the number of the process when it first asks, whenever that is; only then its own holds.
        if torch.get_num_threads() != cores:
            torch.set_num_threads(cores)
        function, *arguments = task
        return function(*arguments)

    others = [_POOL.submit(run, task) for task in tasks[1:]]
    try:
        first = run(tasks[0])
    finally:
        wait(others)  # also where this lane fails: nobody may continue with weights that are still being read
        torch.set_num_threads(threads)
    return [first, *(other.result() for other in others)]
