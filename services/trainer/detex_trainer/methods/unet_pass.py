"""One pass of the base model for any number of learners, each row through the words and deltas of its own.

A concept touches the UNet only through the keys and values of its cross-attention, so rows of different concepts share
a pass, forward and backward, and none sees another.

Legend: U prompts and B rows of a learner, C latent channels, (h, h) latent size, T text tokens, E text width, (n, n)
size of an attention map.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import OwnedTokens
from detex_diffusion.key_value_delta import KeyValueDeltas
from detex_diffusion.text import TokenizedPrompt, encode_text
from detex_diffusion.unet import KeyValueUNet
from detex_trainer.frozen.projections import project_together
from detex_trainer.methods.row_lanes import predict


@dataclass(frozen=True, eq=False)
class PassRows:
    """What a learner asks of the base model in a step.

    Attributes:
        prompts: U distinct prompts; what several rows say alike is read once.
        embeddings: For each prompt its word embeddings (W, E), or None where it has no words of the concept.
        prompt_of_row: B positions in `prompts`.
        owned: (U, T) bool, the tokens that go through the deltas; on the CPU.
        deltas: By cross-attention layer, parameters; empty where there are none.
        latents: (B, C, h, h) with noise.
        timesteps: (B,) int64.
        map_layers: Cross-attention layers whose attention maps are wanted; all learners of a pass that want any want
            those of the same layers.
    """

    prompts: Sequence[TokenizedPrompt]
    embeddings: Sequence[Tensor | None]
    prompt_of_row: Sequence[int]
    owned: Tensor
    deltas: KeyValueDeltas
    latents: Tensor
    timesteps: Tensor
    map_layers: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class PassOutput:
    """What the UNet makes of a learner's rows.

    Attributes:
        prediction: (B, C, h, h) float32.
        maps: By layer (B, T, n, n), empty where none were wanted.
    """

    prediction: Tensor
    maps: Mapping[str, Tensor]


def run_pass(base_model: BaseModel, unet: KeyValueUNet, asked: Sequence[PassRows]) -> list[PassOutput]:
    """Run the text encoder and the UNet once for all rows; differentiable in all embeddings and deltas.

    Args:
        base_model: Whose text encoder and UNet.
        unet: Its UNet.
        asked: By learner; latents of one size.

    Returns:
        By learner, in the order of `asked`.
    """
    prompts = [prompt for rows in asked for prompt in rows.prompts]
    text = encode_text(base_model, prompts, [each for rows in asked for each in rows.embeddings])
    owned, places = [], []
    start = 0
    for rows in asked:
        end = start + len(rows.prompts)
        if rows.deltas:
            tokens = torch.zeros(len(prompts), rows.owned.shape[1], dtype=torch.bool)
            tokens[start:end] = rows.owned
            owned.append(
                OwnedTokens(tokens, {name: delta.to(dtype=text.hidden.dtype) for name, delta in rows.deltas.items()})
            )
        places += [start + place for place in rows.prompt_of_row]
        start = end
    key_values = project_together(base_model.unet, text.hidden, owned, text.pooled, places)
    latents = torch.cat([rows.latents for rows in asked]).to(base_model.dtype)
    timesteps = torch.cat([rows.timesteps for rows in asked])
    layers = _one([tuple(rows.map_layers) for rows in asked if rows.map_layers])
    prediction, maps = predict(unet, latents, timesteps, key_values, layers)
    counts = [len(rows.prompt_of_row) for rows in asked]
    predictions = torch.split(prediction.float(), counts)
    parts = {layer: torch.split(each, counts) for layer, each in maps.items()}
    return [
        PassOutput(predictions[i], {layer: part[i] for layer, part in parts.items()} if rows.map_layers else {})
        for i, rows in enumerate(asked)
    ]


def _one(layers: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    distinct = set(layers)
    if len(distinct) > 1:
        raise ValueError("learners of one pass look at the attention of different layers")
    return distinct.pop() if distinct else ()
