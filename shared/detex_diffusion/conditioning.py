"""Cross-attention keys and values of prompts, each token through the projections of the concept it belongs to.

Once text is encoded, a concept touches the UNet only here: K = (W_k + dW_k) h + k and V = (W_v + dW_v) h + v, with
vectors k and v of its own for each of its subject's tokens. They are computed once per prompt and serve all denoising
steps; the UNet that reads them knows no concept.

Legend: B prompts (rows), T text positions, E text width, H heads, D head dim, S subject tokens, O output width of a
projection, P width of the pooled embedding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torch.nn import functional

from detex_diffusion.concept import KeyValueSource
from detex_diffusion.cross_attention import cross_attention_layers, head_shape
from detex_diffusion.key_value_delta import PROJECTIONS, KeyValueDeltas, ProjectionDelta
from detex_diffusion.key_value_vectors import KeyValueVectors
from detex_diffusion.regions import RegionalKeyValues, RegionalRows


@dataclass(frozen=True, eq=False)
class OwnedTokens:
    """Tokens that go through the same deltas, and what is added to the keys and values of some of them.

    Attributes:
        tokens: (B, T) bool; on the CPU for preference, where reading it waits for no GPU.
        deltas: By cross-attention layer; may be parameters in training. Layers that are absent add nothing.
        subject_rows: (B, T) int64, the row of `vectors` that a token gets, or -1; None where there are no vectors. On
            the CPU for preference.
        vectors: By cross-attention layer, of the subject's tokens; may be parameters in training.
    """

    tokens: Tensor
    deltas: KeyValueDeltas
    subject_rows: Tensor | None = None
    vectors: KeyValueVectors = field(default_factory=dict)

    def subject_places(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Tokens (M,) that get vectors, counted through the batch, and the rows (M,) that they get."""
        if self.subject_rows is None or not self.vectors:
            nothing = torch.zeros(0, dtype=torch.int64, device=device)
            return nothing, nothing
        rows = self.subject_rows.reshape(-1).cpu()
        places = (rows >= 0).nonzero().squeeze(1)
        return places.to(device), rows[places].to(device)


@dataclass(frozen=True, eq=False)
class PromptKeyValues:
    """Keys and values of one prompt.

    Attributes:
        layers: By cross-attention layer, K and V, each (H, T, D) with the layer's own H and D.
        regional: What is read instead where subjects of the prompt have places in the picture; None where none has.
        pooled_text: (P,), the pooled text embedding where the UNet takes one.
    """

    layers: Mapping[str, tuple[Tensor, Tensor]]
    regional: RegionalKeyValues | None = None
    pooled_text: Tensor | None = None

    @property
    def tokens(self) -> int:
        """T."""
        return int(next(iter(self.layers.values()))[0].shape[1])

    @property
    def size_bytes(self) -> int:
        """Bytes of all keys and values, and of the pooled embedding."""
        others = 0 if self.regional is None else self.regional.size_bytes
        if self.pooled_text is not None:
            others += self.pooled_text.numel() * self.pooled_text.element_size()
        return others + sum(t.numel() * t.element_size() for pair in self.layers.values() for t in pair)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "PromptKeyValues":
        """The same on another device or of another type."""
        return PromptKeyValues(
            {
                name: (k.to(device=device, dtype=dtype), v.to(device=device, dtype=dtype))
                for name, (k, v) in self.layers.items()
            },
            None if self.regional is None else self.regional.to(device, dtype),
            None if self.pooled_text is None else self.pooled_text.to(device=device, dtype=dtype),
        )


@dataclass(frozen=True, eq=False)
class KeyValueBatch:
    """Keys and values of B rows of a UNet call.

    Attributes:
        layers: By cross-attention layer, K and V, each (B, H, T, D).
        mask: (B, T) bool, False where a shorter prompt is filled up; None where all prompts have T tokens.
        regional: What those rows read that have regions, in place of `layers`; None where no row has any.
        pooled_text: (B, P), the rows' pooled text embeddings where the UNet takes them.
    """

    layers: Mapping[str, tuple[Tensor, Tensor]]
    mask: Tensor | None = None
    regional: RegionalRows | None = None
    pooled_text: Tensor | None = None

    @property
    def rows(self) -> int:
        """B."""
        return int(next(iter(self.layers.values()))[0].shape[0])

    @classmethod
    def stack(cls, prompts: Sequence[PromptKeyValues]) -> "KeyValueBatch":
        """One row for each prompt; shorter ones are filled up with zeros that no query sees."""
        lengths = [prompt.tokens for prompt in prompts]
        longest = max(lengths)
        layers = {}
        for name in prompts[0].layers:
            pairs = [prompt.layers[name] for prompt in prompts]
            layers[name] = (
                torch.stack([_filled(key, longest) for key, _ in pairs]),
                torch.stack([_filled(value, longest) for _, value in pairs]),
            )
        placed = {row: prompt.regional for row, prompt in enumerate(prompts) if prompt.regional is not None}
        regional = RegionalRows.stack(list(placed), list(placed.values())) if placed else None
        pooled_text = stacked_pooled_text(prompts)
        if min(lengths) == longest:
            return cls(layers, regional=regional, pooled_text=pooled_text)
        device = next(iter(layers.values()))[0].device
        mask = torch.arange(longest, device=device) < torch.tensor(lengths, device=device).unsqueeze(1)
        return cls(layers, mask, regional, pooled_text)

    def attend(self, layer: str, query: Tensor) -> Tensor:
        """What a cross-attention layer reads: (B, H, N, D) for queries (B, H, N, D) of N image positions."""
        key, value = self.layers[layer]
        mask = None if self.mask is None else self.mask[:, None, None, :]  # (B, 1, 1, T)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return attended if self.regional is None else self.regional.attend(layer, query, attended)

    def row(self, index: int) -> PromptKeyValues:
        """Keys and values of one row, without what was filled up, and without regions."""
        length = None if self.mask is None else int(self.mask[index].sum().item())
        return PromptKeyValues(
            {n: (k[index, :, :length], v[index, :, :length]) for n, (k, v) in self.layers.items()},
            pooled_text=None if self.pooled_text is None else self.pooled_text[index],
        )

    def select(self, places: Sequence[int]) -> "KeyValueBatch":
        """A row for each place, as the row there; for batches without regions."""
        if list(places) == list(range(self.rows)):
            return self
        index = torch.tensor(places, device=next(iter(self.layers.values()))[0].device)
        return KeyValueBatch(
            {name: (k.index_select(0, index), v.index_select(0, index)) for name, (k, v) in self.layers.items()},
            None if self.mask is None else self.mask.index_select(0, index),
            pooled_text=None if self.pooled_text is None else self.pooled_text.index_select(0, index),
        )


def stacked_pooled_text(prompts: Sequence[PromptKeyValues]) -> Tensor | None:
    """Pooled embeddings (B, P) of prompts; None where they have none. Either all of them have one or none has."""
    found = [prompt.pooled_text for prompt in prompts if prompt.pooled_text is not None]
    if not found:
        return None
    if len(found) < len(prompts):
        raise ValueError("prompts with a pooled embedding share no batch with prompts without")
    return torch.stack(found)


def project(
    unet: UNet2DConditionModel,
    hidden: Tensor,
    owned: Sequence[OwnedTokens] = (),
    pooled_text: Tensor | None = None,
) -> KeyValueBatch:
    """Keys and values of a batch of prompts; differentiable in the hidden states, the deltas and the vectors.

    Args:
        unet: Whose projections.
        hidden: (B, T, E), from `text.encode`.
        owned: Which tokens go through which deltas and get which vectors; a token in several entries gets the sum.
        pooled_text: (B, P), carried along; None where the UNet takes none.
    """
    rows, length, width = hidden.shape
    flat = hidden.reshape(rows * length, width)
    parts = []
    for part in owned:
        positions = _positions(part.tokens, flat.device)
        parts.append((positions, flat if positions is None else flat[positions], part))
    subjects = [part.subject_places(flat.device) for part in owned]
    layers = {}
    for name, module in cross_attention_layers(unet).items():
        heads, _ = head_shape(module)
        pair = []
        for projection in PROJECTIONS:
            linear = getattr(module, projection)
            output = linear(flat)  # (B T, O)
            places, added = [], []
            for (positions, tokens, part), (subject_places, subject_rows) in zip(parts, subjects, strict=True):
                vectors = part.vectors.get(name)
                if vectors is not None and len(subject_places):
                    places.append(subject_places)
                    added.append(getattr(vectors, projection).index_select(0, subject_rows))
                layer_delta = part.deltas.get(name)
                delta: ProjectionDelta | None = None if layer_delta is None else getattr(layer_delta, projection)
                if delta is None or not len(tokens):
                    continue
                if positions is None:
                    output = output + delta.apply(tokens)
                else:
                    places.append(positions)
                    added.append(delta.apply(tokens))
            if places:
                # Once for all: each addition would copy the keys and values of the whole batch.
                output = output.index_add(0, torch.cat(places), torch.cat(added))
            pair.append(output.view(rows, length, heads, -1).transpose(1, 2))  # (B, H, T, D)
        layers[name] = (pair[0], pair[1])
    return KeyValueBatch(layers, pooled_text=pooled_text)


def key_values(
    unet: UNet2DConditionModel,
    hidden: Tensor,
    owners: Tensor,
    concepts: Sequence[KeyValueSource],
    pooled_text: Tensor | None = None,
    *,
    subject_rows: Tensor | None = None,
) -> PromptKeyValues:
    """Keys and values of one prompt.

    One prompt at a time on purpose: every matrix product has the prompt's own shape, so that the result is the same
    bit for bit whatever other prompts are being served.

    A concept of scope `words` has its own tokens (embeddings and nouns) alone; the other tokens go through the base
    model's projections. A concept of scope `prompt` has all T tokens, start, end and padding included, where it is the
    only concept of the prompt; beside others it has its own tokens alone.

    Args:
        unet: Whose projections.
        hidden: (T, E), from `text.encode`.
        owners: (T,) int64, index in `concepts` or -1, from `TokenizedPrompt.owners`.
        concepts: In the order of `TokenizedPrompt.concepts`, on the device and of the type of the UNet.
        pooled_text: (P,), carried along; None where the UNet takes none.
        subject_rows: (T,) int64, from `TokenizedPrompt.subject_rows`.

    Raises:
        ValueError: A concept adds vectors to its subject's tokens, and `subject_rows` does not say where they are.
    """
    owners = owners.cpu()
    if subject_rows is None and any(concept.subject_key_value for concept in concepts):
        raise ValueError("keys and values of a concept with vectors for its subject's tokens need `subject_rows`")
    owned = []
    for index, concept in enumerate(concepts):
        tokens = owned_tokens(owners, index, concept, len(concepts))
        rows = None if subject_rows is None else torch.where(owners == index, subject_rows.cpu(), -1).unsqueeze(0)
        owned.append(OwnedTokens(tokens.unsqueeze(0), concept.key_value, rows, concept.subject_key_value))
    batch = project(unet, hidden.unsqueeze(0), owned)
    # Contiguous per head, as a row of a stacked batch is.
    return PromptKeyValues(
        {name: (k[0].contiguous(), v[0].contiguous()) for name, (k, v) in batch.layers.items()}, pooled_text=pooled_text
    )


def owned_tokens(owners: Tensor, index: int, concept: KeyValueSource, concepts: int) -> Tensor:
    """Tokens (T,) bool that go through the deltas of the concept at an index of a prompt with so many concepts."""
    if concept.scope == "prompt" and concepts == 1:
        return torch.ones_like(owners, dtype=torch.bool)
    return owners == index


def _positions(tokens: Tensor, device: torch.device) -> Tensor | None:
    """Where the tokens (B, T) are, counted through the batch; None for everywhere."""
    flat = tokens.reshape(-1).cpu()
    return None if bool(flat.all()) else flat.nonzero().squeeze(1).to(device)


def _filled(tensor: Tensor, tokens: int) -> Tensor:
    missing = tokens - tensor.shape[1]
    return functional.pad(tensor, (0, 0, 0, missing)) if missing else tensor
