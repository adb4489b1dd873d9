"""One pass of the base model for any number of learners, each row through the words and deltas of its own.

A concept touches the UNet only through the keys and values of its cross-attention, so rows of different concepts share
a pass, forward and backward, and none sees another.

Legend: U prompts, V prompts that are encoded already and B rows of a learner, C latent channels, (h, h) latent size, T
text tokens, E text width, (n, n) size of an attention map.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from detex_diffusion.base_model import BaseModel
from detex_diffusion.conditioning import OwnedTokens
from detex_diffusion.key_value_delta import KeyValueDeltas
from detex_diffusion.key_value_vectors import KeyValueVectors
from detex_diffusion.text import Encode, TokenizedPrompt, encode_text
from detex_diffusion.text_conditioning import EncodedText
from detex_diffusion.unet import KeyValueUNet
from detex_trainer.frozen.projections import project_together
from detex_trainer.learning.methods.graphed_pass import passes_of
from detex_trainer.learning.methods.row_lanes import predict


@dataclass(frozen=True, eq=False)
class PassRows:
    """What a learner asks of the base model in a step.

    Attributes:
        prompts: U distinct prompts; what several rows say alike is read once.
        embeddings: For each prompt its word embeddings (W, E), or None where it has no words of the concept.
        prompt_of_row: B positions in `prompts`, and from U on in `encoded`.
        owned: (U + V, T) bool, the tokens that go through the deltas; on the CPU.
        deltas: By cross-attention layer, parameters; empty where there are none.
        latents: (B, C, h, h) with noise.
        timesteps: (B,) int64.
        map_layers: Cross-attention layers whose attention maps are wanted; all learners of a pass that want any want
            those of the same layers.
        subject_rows: (U, T) int64, the row of `vectors` that a token of a prompt gets, or -1; on the CPU. None where
            there are no vectors.
        vectors: What is added to keys and values of the subject's tokens, by cross-attention layer, parameters.
        encoded: V prompts without words of the concept, which are read once for all steps: hidden states (V, T, E).
    """

    prompts: Sequence[TokenizedPrompt]
    embeddings: Sequence[Tensor | None]
    prompt_of_row: Sequence[int]
    owned: Tensor
    deltas: KeyValueDeltas
    latents: Tensor
    timesteps: Tensor
    map_layers: Sequence[str] = ()
    subject_rows: Tensor | None = None
    vectors: KeyValueVectors = field(default_factory=dict)
    encoded: EncodedText | None = None

    def followed_by(self, text: EncodedText, latents: Tensor, timesteps: Tensor) -> "PassRows":
        """These rows, which read no encoded prompt, and then others under one, all its tokens through the deltas.

        Args:
            text: The prompt, (1, T, E).
            latents: (R, C, h, h) with noise, of the size of those that are there.
            timesteps: (R,) int64.
        """
        return replace(
            self,
            prompt_of_row=[*self.prompt_of_row, *[len(self.prompts)] * len(timesteps)],
            owned=torch.cat([self.owned, torch.ones(1, self.owned.shape[1], dtype=torch.bool)]),
            latents=torch.cat([self.latents, latents]),
            timesteps=torch.cat([self.timesteps, timesteps]),
            encoded=text,
        )


@dataclass(frozen=True, eq=False)
class PassOutput:
    """What the UNet makes of a learner's rows.

    Attributes:
        prediction: (B, C, h, h) float32.
        maps: By layer (B, T, n, n), empty where none were wanted.
    """

    prediction: Tensor
    maps: Mapping[str, Tensor]

    def split(self, rows: int) -> tuple["PassOutput", "PassOutput"]:
        """What is made of the first rows, and of the others."""
        ends = slice(None, rows), slice(rows, None)
        first, others = (
            PassOutput(self.prediction[end], {layer: each[end] for layer, each in self.maps.items()}) for end in ends
        )
        return first, others


def run_pass(base_model: BaseModel, unet: KeyValueUNet, asked: Sequence[PassRows]) -> list[PassOutput]:
    """Run the text encoder and the UNet once for all rows; differentiable in all embeddings and deltas.

    Args:
        base_model: Whose text encoder and UNet.
        unet: Its UNet.
        asked: By learner; latents of one size.

    Returns:
        By learner, in the order of `asked`.
    """
    text = _text(base_model, asked)
    owned, places = [], []
    start, encoded_start = 0, sum(len(rows.prompts) for rows in asked)
    for rows in asked:
        end = start + len(rows.prompts)
        encoded_end = encoded_start + (0 if rows.encoded is None else len(rows.encoded.hidden))
        own = [*range(start, end), *range(encoded_start, encoded_end)]
        if rows.deltas or rows.vectors:
            owned.append(_owned(rows, own, text.hidden))
        places += [own[place] for place in rows.prompt_of_row]
        start, encoded_start = end, encoded_end
    key_values = project_together(base_model.unet, text.hidden, owned, text.pooled, places)
    latents = torch.cat([rows.latents for rows in asked]).to(base_model.dtype)
    timesteps = torch.cat([rows.timesteps for rows in asked])
    layers = _one([tuple(rows.map_layers) for rows in asked if rows.map_layers])
    passes = passes_of(unet.unet)
    seen = None if passes is None else passes.predict(unet, latents, timesteps, key_values, layers)
    prediction, maps = seen or predict(unet, latents, timesteps, key_values, layers)
    counts = [len(rows.prompt_of_row) for rows in asked]
    predictions = torch.split(prediction.float(), counts)
    parts = {layer: torch.split(each, counts) for layer, each in maps.items()}
    return [
        PassOutput(predictions[i], {layer: part[i] for layer, part in parts.items()} if rows.map_layers else {})
        for i, rows in enumerate(asked)
    ]


def _owned(rows: PassRows, own: Sequence[int], hidden: Tensor) -> OwnedTokens:
    """Which tokens of all prompts (of hidden states (U, T, E)) are a learner's, whose prompts are those at `own`."""
    tokens = torch.zeros(hidden.shape[:2], dtype=torch.bool)
    tokens[own] = rows.owned
    subject_rows = None
    if rows.subject_rows is not None:
        subject_rows = torch.full(hidden.shape[:2], -1)
        subject_rows[own[: len(rows.subject_rows)]] = rows.subject_rows
    return OwnedTokens(
        tokens,
        {name: delta.to(dtype=hidden.dtype) for name, delta in rows.deltas.items()},
        subject_rows,
        {name: vectors.to(dtype=hidden.dtype) for name, vectors in rows.vectors.items()},
    )


def _text(base_model: BaseModel, asked: Sequence[PassRows]) -> EncodedText:
    """What the UNet reads: prompts of all learners, then those of all learners that are encoded already."""
    prompts = [prompt for rows in asked for prompt in rows.prompts]
    embeddings = [each for rows in asked for each in rows.embeddings]
    text = encode_text(base_model, prompts, embeddings, _encode_by(base_model))
    parts = [text, *(rows.encoded for rows in asked if rows.encoded is not None)]
    if len(parts) == 1:
        return text
    pooled = [part.pooled for part in parts if part.pooled is not None]
    return EncodedText(torch.cat([part.hidden for part in parts]), torch.cat(pooled) if pooled else None)


def _encode_by(base_model: BaseModel) -> Encode | None:
    """The text encoders of a base model whose passes are captured; None where they are run as they are."""
    passes = passes_of(base_model.unet)
    if passes is None:
        return None

    def encode(ids: Tensor, mask: Tensor, rows: Tensor, words: Tensor | None, ends: Tensor) -> EncodedText:
        found = None if words is None else passes.encode(base_model.text, ids, mask, rows, words, ends)
        return found or base_model.text.encode(ids, mask, rows, words, ends)

    return encode


def _one(layers: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    distinct = set(layers)
    if len(distinct) > 1:
        raise ValueError("learners of one pass look at the attention of different layers")
    return distinct.pop() if distinct else ()
