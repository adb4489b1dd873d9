"""How text conditions a base model: a tokenizer, and one text encoder or two.

This is where base models differ. Stable Diffusion 1.x and 2.x read the last hidden states of one encoder. Stable
Diffusion XL reads the hidden states before the last layer of two encoders, side by side, and a pooled embedding of the
second. Both encoders of XL read the same tokens, which differ in padding alone, so a word of a concept is a row of each
encoder's embedding table; in detex the two rows lie side by side as one. The tokens are the first tokenizer's. The
second pads with "!" and takes that for padding also within a text, unlike the model's training; here it is a mark.

Legend: B prompts, T token positions, W words of concepts in all prompts, E_i width of encoder i, E sum of the widths,
P width of the pooled embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection
from transformers.masking_utils import create_causal_mask

from detex_core.errors import FailedPreconditionError
from detex_diffusion.model_files import loaded_model
from detex_diffusion.model_index import Architecture, ModelIndex
from detex_diffusion.tokenizer import load_tokenizer


@dataclass(frozen=True, eq=False)
class TextEncoder:
    """A CLIP text encoder.

    Attributes:
        model: CLIPTextModel or CLIPTextModelWithProjection.
        padding_id: Token that its prompts are filled up with.
    """

    model: Any
    padding_id: int

    @property
    def width(self) -> int:
        """E_i."""
        return int(self.model.config.hidden_size)

    @property
    def transformer(self) -> Any:
        """The model without its projection."""
        return getattr(self.model, "text_model", self.model)

    def layers_but_last(
        self, ids: Tensor, attention_mask: Tensor, rows: Tensor, words: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Hidden states (B, T, E_i) before the last layer, and the mask that the last layer takes.

        Args:
            ids: (B, T) int64.
            attention_mask: (B, T) int64, 0 on padding; only looked at by encoders that ask for it.
            rows: (B, T) int64, row of `words` that stands at a position, or -1.
            words: (W, E_i), or None where there are none.
        """
        transformer = self.transformer
        inputs = transformer.embeddings.token_embedding(ids)
        if words is not None:
            placed = words.to(inputs.dtype)[rows.clamp(min=0)]
            inputs = torch.where((rows >= 0).unsqueeze(-1), placed, inputs)
        hidden = transformer.embeddings(inputs_embeds=inputs)
        uses_mask = getattr(self.model.config, "use_attention_mask", False)
        mask = create_causal_mask(
            config=transformer.config,
            inputs_embeds=hidden,
            attention_mask=attention_mask if uses_mask else None,
            past_key_values=None,
        )
        for layer in transformer.encoder.layers[:-1]:
            hidden = layer(hidden, mask, is_causal=True)
        return hidden, mask

    def last_layer(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        """Hidden states (B, T, E_i) after the last layer and the final norm, of those before the last layer."""
        states: Tensor = self.transformer.encoder.layers[-1](hidden, mask, is_causal=True)
        normed: Tensor = self.transformer.final_layer_norm(states)
        return normed


@dataclass(frozen=True, eq=False)
class EncodedText:
    """What the UNet reads of prompts.

    Attributes:
        hidden: (B, T, E), what keys and values are made of.
        pooled: (B, P), added to the embedding of the timestep; None where the UNet takes none.
    """

    hidden: Tensor
    pooled: Tensor | None


@dataclass(frozen=True, eq=False)
class TextConditioning:
    """Tokenizer and text encoders of a base model, frozen.

    Attributes:
        architecture: Which hidden states are read, and whether there is a pooled embedding.
        tokenizer: CLIPTokenizer of the first encoder; `model_max_length` is T.
        encoders: One, or two in the order of their hidden states.
        zeros_when_unconditional: Whether the UNet reads zeros in place of an empty negative prompt.
    """

    architecture: Architecture
    tokenizer: Any
    encoders: tuple[TextEncoder, ...]
    zeros_when_unconditional: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """E_i of each encoder."""
        return tuple(encoder.width for encoder in self.encoders)

    @property
    def width(self) -> int:
        """E, of word embeddings and of hidden states."""
        return sum(self.widths)

    @property
    def pooled_width(self) -> int:
        """P; 0 where there is no pooled embedding."""
        if self.architecture is Architecture.STABLE_DIFFUSION:
            return 0
        return int(self.encoders[-1].model.config.projection_dim)

    def modules(self) -> tuple[nn.Module, ...]:
        """All encoders."""
        return tuple(encoder.model for encoder in self.encoders)

    def with_modules(self, modules: Sequence[nn.Module]) -> "TextConditioning":
        """The same with other encoders of the same kinds, in the order of `modules()`."""
        encoders = zip(self.encoders, modules, strict=True)
        return replace(self, encoders=tuple(replace(encoder, model=module) for encoder, module in encoders))

    def token_embeddings(self, ids: Tensor) -> Tensor:
        """Rows (..., E) of the embedding tables for token ids (...), before positions are added."""
        tables = [encoder.model.get_input_embeddings().weight for encoder in self.encoders]
        return torch.cat([table[ids.to(table.device)] for table in tables], dim=-1)

    def split(self, embeddings: Tensor) -> tuple[Tensor, ...]:
        """The parts (..., E_i) of word embeddings (..., E) that belong to each encoder."""
        return torch.split(embeddings, list(self.widths), dim=-1)

    def encode(
        self, ids: Tensor, attention_mask: Tensor, rows: Tensor, words: Tensor | None, ends: Tensor
    ) -> EncodedText:
        """Run the encoders; differentiable in the words.

        Args:
            ids: (B, T) int64, as the first encoder reads them.
            attention_mask: (B, T) int64, 0 on padding.
            rows: (B, T) int64, row of `words` that stands at a position, or -1.
            words: (W, E), or None where there are none.
            ends: (B,) int64, position of the end-of-text token, where the pooled embedding is read.
        """
        parts = [None] * len(self.encoders) if words is None else self.split(words)
        if self.architecture is Architecture.STABLE_DIFFUSION:
            (encoder,) = self.encoders
            return EncodedText(encoder.last_layer(*encoder.layers_but_last(ids, attention_mask, rows, parts[0])), None)
        states = []
        pooled = None
        for encoder, part in zip(self.encoders, parts, strict=True):
            own_ids = torch.where(attention_mask > 0, ids, encoder.padding_id)
            hidden, mask = encoder.layers_but_last(own_ids, attention_mask, rows, part)
            states.append(hidden)
            if encoder is self.encoders[-1]:
                last = encoder.last_layer(hidden, mask)
                pooled = encoder.model.text_projection(last[torch.arange(len(last), device=last.device), ends])
        return EncodedText(torch.cat(states, dim=-1), pooled)


def load_text_conditioning(folder: Path, index: ModelIndex, dtype: torch.dtype) -> TextConditioning:
    """Tokenizers and text encoders of a base model.

    Raises:
        FailedPreconditionError: Weights are pickles, or two tokenizers differ in more than their padding.
        DataLossError: A file is missing or damaged, or tensors are missing, unknown or of wrong shape.
    """
    tokenizers = [load_tokenizer(folder / tokenizer, folder / encoder) for tokenizer, encoder in index.text_parts]
    classes = (CLIPTextModel, CLIPTextModelWithProjection)
    models = [
        loaded_model(model_class, folder / encoder, "model", dtype=dtype)
        for model_class, (_, encoder) in zip(classes, index.text_parts, strict=False)
    ]
    for tokenizer, model, (name, _) in zip(tokenizers, models, index.text_parts, strict=True):
        if len(tokenizer) > model.config.vocab_size:
            raise FailedPreconditionError(
                f"Base model in {folder.name!r}: {name} has {len(tokenizer)} tokens, its text encoder "
                f"{model.config.vocab_size}."
            )
    for tokenizer in tokenizers[1:]:
        if _reading(tokenizer) != _reading(tokenizers[0]):
            raise FailedPreconditionError(
                f"Base model in {folder.name!r}: its two tokenizers must differ in their padding only."
            )
    encoders = tuple(
        TextEncoder(model, int(tokenizer.pad_token_id)) for model, tokenizer in zip(models, tokenizers, strict=True)
    )
    return TextConditioning(index.architecture, tokenizers[0], encoders, index.zeros_when_unconditional)


_PROBE = "A photo of the [red] mug's lid: 3-in-1, naïve 写真 x" + "ß" * 3


def _reading(tokenizer: Any) -> tuple[object, ...]:
    """What tells how a tokenizer reads text, but for its padding."""
    ids = tuple(tokenizer(_PROBE, add_special_tokens=False)["input_ids"])
    ends = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.model_max_length)
    return tokenizer.get_vocab(), ends, ids
