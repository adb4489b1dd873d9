"""The base model's tokenizer: CLIP's format, a vocabulary of a few hundred words, and bytes for everything else.

The ids are laid out as CLIP's: 256 bytes, the 256 bytes as ends of words, one token per merge, start and end of text.
Any string therefore tokenises without an unknown token, and end of text has the highest id.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from benchmarks.showroom.captions import caption_words

MAX_TOKENS: Final = 48
"""Length that prompts are padded to: half of CLIP's, as cross-attention pays for every token."""
START_OF_TEXT: Final = "<|startoftext|>"
END_OF_TEXT: Final = "<|endoftext|>"
END_OF_WORD: Final = "</w>"

_MORE_WORDS: Final = (
    "the this that my your one two three of on at to by from for small big large tiny old new bright dark light "
    "nice good bad clean shiny cute wooden metal stone glass paper table wall floor sky sea sand water sun moon "
    "night day house garden street road room park river lake mountain field tree flower grass city sign is are "
    "was it its no not without near under over behind beside between front back left right top bottom side view "
    "lighting pattern style color colour brown grey gray gold silver cup chair toy ball book shoe bag dog cat "
    "bird man woman product object thing photo photograph drawing painting detailed blurry low high quality empty "
    "full"
)
EXTRA_WORDS: Final = tuple(_MORE_WORDS.split())
"""Common words that no caption holds; a token each keeps prompts short."""


def learn_merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, in order, by which each of `words` becomes one token; the same words give the same merges.

    The most frequent pair is merged first, and of equally frequent ones the first in alphabetical order. (The trainer
    of the tokenizers library breaks such ties differently from run to run, so every process would have a vocabulary of
    its own.)
    """
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    spellings = []
    for word in sorted(set(words)):
        letters = list(byte_level.pre_tokenize_str(word)[0][0])
        spellings.append([*letters[:-1], letters[-1] + END_OF_WORD])
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for symbols in spellings for pair in pairwise(symbols)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spellings = [_merged(symbols, best) for symbols in spellings]
    return merges


def _merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """Replace every occurrence of a pair, from the left, by one symbol."""
    result: list[str] = []
    for symbol in symbols:
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return result


def build_tokenizer() -> CLIPTokenizer:
    """The tokenizer of the base model."""
    merges = learn_merges([*caption_words(), *EXTRA_WORDS])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(letter + END_OF_WORD for letter in alphabet)]
    tokens += [first + second for first, second in merges]
    tokens += [START_OF_TEXT, END_OF_TEXT]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write `vocab.json`, `merges.txt` and the configuration, as Stable Diffusion's tokenizer folder."""
    tokenizer.save_pretrained(folder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"], ensure_ascii=False) + "\n", encoding="utf-8")
    lines = "\n".join(f"{first} {second}" for first, second in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{lines}\n", encoding="utf-8")
