"""Prompts as tokens and as hidden states, with the words of concepts at their positions.

Legend: B prompts, T token positions (the length the text encoder reads), W words of concepts in one prompt, E width of
word embeddings, of all text encoders side by side.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from detex_core.errors import InvalidInputError, invalid_input
from detex_core.prompt import AttributeWord, Prompt, SubjectWord, Text
from detex_diffusion.concept import Concept, ConceptWords, Word
from detex_diffusion.text_conditioning import EncodedText, TextConditioning

if TYPE_CHECKING:
    from detex_diffusion.base_model import BaseModel


Encode = Callable[[Tensor, Tensor, Tensor, Tensor | None, Tensor], EncodedText]


@dataclass(frozen=True)
class PromptWord:
    """A word of a concept as a prompt uses it.

    Attributes:
        concept: Index in `TokenizedPrompt.concepts`.
        word: Which of the concept's words.
    """

    concept: int
    word: Word


@dataclass(frozen=True, eq=False)
class TokenizedPrompt:
    """A prompt of T tokens with start, end and padding.

    Attributes:
        ids: (T,) int64. Where a word of a concept stands, the id is the end-of-text token's and is not looked up.
        attention_mask: (T,) int64, 1 up to and including the end token, 0 on padding.
        owners: (T,) int64, index in `concepts` of the concept that a token belongs to, or -1.
        word_rows: (T,) int64, index in `words` of the embedding that stands at a position, or -1.
        words: The W distinct words of concepts, in the order of their first use.
        concepts: Names in the order of their first word.
        length: Tokens before padding, start and end included.
        parts: (T,) int64, index of the part of the prompt that a token comes from, or -1 for start, end and padding.
            The noun of a word of a concept counts to the word's part.
        is_zeroed: Whether the UNet reads zeros in its place, see `tokenize_negative`.
    """

    ids: Tensor
    attention_mask: Tensor
    owners: Tensor
    word_rows: Tensor
    words: tuple[PromptWord, ...]
    concepts: tuple[str, ...]
    length: int
    parts: Tensor
    is_zeroed: bool = False

    @property
    def subject_rows(self) -> Tensor:
        """(T,) int64: which of its concept's subject tokens, 0 to S - 1, stands at a position; -1 where none does."""
        of_words = [-1 if used.word.attribute is not None else used.word.index for used in self.words]
        return torch.tensor([*of_words, -1])[self.word_rows]

    def positions(self, concept: str, attribute: str | None = None, *, with_noun: bool = False) -> Tensor:
        """Positions (M,) int64 of a concept's words.

        Args:
            concept: Name.
            attribute: Of this attribute (any photo), or None for the subject.
            with_noun: Also the noun tokens right after each word.
        """
        index = self.concepts.index(concept)
        rows = {i for i, used in enumerate(self.words) if (used.concept, used.word.attribute) == (index, attribute)}
        found: list[int] = []
        inside = False
        for position in range(self.length):
            row = int(self.word_rows[position])
            if row >= 0:
                inside = row in rows
            elif int(self.owners[position]) != index:
                inside = False
            if inside and (row >= 0 or with_noun):
                found.append(position)
        return torch.tensor(found, dtype=torch.int64)


def tokenize(
    prompt: Prompt, concepts: Mapping[str, ConceptWords], tokenizer: Any, *, field: str = "prompt"
) -> TokenizedPrompt:
    """Turn a prompt into tokens.

    `[name]` becomes the subject's S embeddings and the tokens of the class word, `[name:attribute:i]` the attribute's
    embedding of photo i and the tokens of the attribute word (underscores and hyphens read as spaces); neither noun is
    said twice where the text continues with it. Embeddings and nouns belong to the concept. Without words of concepts
    the ids are those of the tokenizer for the whole text.

    Args:
        prompt: From `detex_core.prompt.parse_prompt`.
        concepts: By name, at least those that the prompt names.
        tokenizer: CLIP tokenizer of the base model; `model_max_length` is T.
        field: Name of the field in errors.

    Raises:
        InvalidInputError: The prompt names a concept, an attribute or a photo that is not there, or has more tokens
            than the text encoder reads; nothing is cut off in silence.
    """
    names = prompt.concepts()
    ids: list[int] = []
    owners: list[int] = []
    rows: list[int] = []
    parts: list[int] = []
    words: dict[PromptWord, int] = {}

    def append(tokens: Sequence[int], owner: int, part: int, row: int = -1) -> None:
        ids.extend(tokens)
        owners.extend([owner] * len(tokens))
        rows.extend([row] * len(tokens))
        parts.extend([part] * len(tokens))

    noun: list[int] = []  # tokens still owed after the last word
    noun_owner = noun_part = -1
    for index, part in enumerate(prompt.parts):
        if isinstance(part, Text):
            tokens = _plain_tokens(tokenizer, part.text)
            said = noun if tokens[: len(noun)] == noun else []
            # Text of spaces alone says nothing: the noun stays owed and follows all the same.
            append(noun, noun_owner, noun_part)
            append(tokens[len(said) :], -1, index)
            noun = []
            continue
        append(noun, noun_owner, noun_part)
        noun_owner, noun_part = names.index(part.concept), index
        used, noun_text = _resolve(part, concepts, field)
        for word in used:
            row = words.setdefault(PromptWord(noun_owner, word), len(words))
            append([tokenizer.eos_token_id], noun_owner, index, row)
        noun = _plain_tokens(tokenizer, noun_text)
    append(noun, noun_owner, noun_part)

    length = tokenizer.model_max_length
    if len(ids) > length - 2:
        given = f"{len(ids):,} tokens"
        raise invalid_input(
            field, given, f"at most {length - 2} tokens, including the words of concepts and their nouns"
        )
    padding = length - 2 - len(ids)
    return TokenizedPrompt(
        ids=torch.tensor([tokenizer.bos_token_id, *ids, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * padding]),
        attention_mask=torch.tensor([1] * (len(ids) + 2) + [0] * padding),
        owners=torch.tensor([-1, *owners, -1, *[-1] * padding]),
        word_rows=torch.tensor([-1, *rows, -1, *[-1] * padding]),
        words=tuple(words),
        concepts=names,
        length=len(ids) + 2,
        parts=torch.tensor([-1, *parts, -1, *[-1] * padding]),
    )


def tokenize_negative(
    prompt: Prompt, concepts: Mapping[str, ConceptWords], text: TextConditioning, *, field: str = "negative_prompt"
) -> TokenizedPrompt:
    """Turn a negative prompt into tokens, as `tokenize`; an empty one is that of unconditional rows.

    Stable Diffusion XL was trained with zeros in place of the text of unconditional rows, where its index says so.
    """
    tokenized = tokenize(prompt, concepts, text.tokenizer, field=field)
    is_empty = tokenized.length == 2
    return replace(tokenized, is_zeroed=True) if is_empty and text.zeros_when_unconditional else tokenized


def word_embeddings(tokenized: TokenizedPrompt, concepts: Mapping[str, Concept]) -> Tensor | None:
    """Embeddings (W, E) of the words of a prompt, in the order of `tokenized.words`; None where there are none."""
    if not tokenized.words:
        return None
    return torch.stack([concepts[tokenized.concepts[used.concept]].embedding(used.word) for used in tokenized.words])


def encode(
    base_model: "BaseModel",
    tokenized: Sequence[TokenizedPrompt],
    embeddings: Sequence[Tensor | None] | None = None,
) -> Tensor:
    """Hidden states (B, T, E) of prompts: those of `encode_text`."""
    return encode_text(base_model, tokenized, embeddings).hidden


def encode_text(
    base_model: "BaseModel",
    tokenized: Sequence[TokenizedPrompt],
    embeddings: Sequence[Tensor | None] | None = None,
    encode: Encode | None = None,
) -> EncodedText:
    """What the UNet reads of prompts, as diffusers' pipelines compute it, with the words of concepts in place.

    Differentiable in the embeddings. Without words the result is bit for bit that of the text encoders themselves.
    Prompts that are to come out the same bit for bit in any company are encoded one at a time.

    Args:
        base_model: Whose text encoders.
        tokenized: B prompts.
        embeddings: For each prompt its word embeddings (W, E) in the order of its `words`, or None where it has none.
        encode: Runs the encoders, with the arguments of `TextConditioning.encode`, which it is by default.

    Returns:
        Of the text encoders' type and on their device: after the final layer norm for Stable Diffusion 1.x and 2.x,
        before the last layer and with a pooled embedding for XL.
    """
    device, dtype = base_model.device, base_model.dtype
    given = list(embeddings) if embeddings is not None else [None] * len(tokenized)
    blocks, rows, offset = [], [], 0
    for prompt, block in zip(tokenized, given, strict=True):
        width = 0 if block is None else int(block.shape[0])
        if width != len(prompt.words):
            raise ValueError(f"a prompt of {len(prompt.words)} words of concepts came with {width} embeddings")
        rows.append(torch.where(prompt.word_rows >= 0, prompt.word_rows + offset, -1))
        offset += width
        if block is not None:
            blocks.append(block.to(device=device, dtype=dtype))
    encoded = (encode or base_model.text.encode)(
        torch.stack([prompt.ids for prompt in tokenized]).to(device),
        torch.stack([prompt.attention_mask for prompt in tokenized]).to(device),
        torch.stack(rows).to(device),
        torch.cat(blocks) if blocks else None,
        torch.tensor([prompt.length - 1 for prompt in tokenized], device=device),
    )
    zeroed = [index for index, prompt in enumerate(tokenized) if prompt.is_zeroed]
    if not zeroed:
        return encoded
    kept = torch.ones(len(tokenized), 1, dtype=encoded.hidden.dtype)
    kept[zeroed] = 0
    kept = kept.to(device)
    return EncodedText(encoded.hidden * kept.unsqueeze(-1), None if encoded.pooled is None else encoded.pooled * kept)


def _plain_tokens(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, truncation=False, padding=False, verbose=False)["input_ids"])


def _resolve(
    part: SubjectWord | AttributeWord, concepts: Mapping[str, ConceptWords], field: str
) -> tuple[list[Word], str]:
    """The words that a part of a prompt stands for, and the noun that follows them."""
    concept = concepts.get(part.concept)
    if concept is None:
        raise invalid_input(field, f"concept {part.concept!r}", f"one of {_listed(concepts)}")
    if isinstance(part, SubjectWord):
        return [Word(None, i) for i in range(concept.subject_tokens)], concept.class_word
    counts = concept.attribute_counts
    if part.attribute not in counts:
        raise _unknown_word(part, field, f"an attribute of {part.concept!r} ({_listed(counts)})")
    count = counts[part.attribute]
    if part.photo_index >= count:
        raise _unknown_word(part, field, f"a word with photo 0 to {count - 1}")
    return [Word(part.attribute, part.photo_index)], part.attribute.replace("_", " ").replace("-", " ")


def _unknown_word(part: AttributeWord, field: str, accepted: str) -> InvalidInputError:
    return invalid_input(field, f"[{part.concept}:{part.attribute}:{part.photo_index}]", accepted)


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names)) or "none"
