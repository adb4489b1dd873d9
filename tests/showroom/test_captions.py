"""Captions and the tokenizer: every caption in whole words, every string without loss."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPTokenizer

from benchmarks.showroom.base_model.tokenizer import MAX_TOKENS, build_tokenizer, learn_merges, save_tokenizer
from benchmarks.showroom.captions import caption_words, sample_caption
from benchmarks.showroom.factors import POSES, SCENES
from benchmarks.showroom.renderer import PhotoLabels
from benchmarks.showroom.subject import sample_subject, split_of
from benchmarks.showroom.view import sample_view

TOKENIZER = build_tokenizer()


def labels_of(seed: int) -> PhotoLabels:
    return PhotoLabels(split=split_of(seed), subject=sample_subject(seed), view=sample_view(seed))


@settings(deadline=None)
@given(seed=st.integers(min_value=0, max_value=2**40))
def test_captions_name_only_what_is_there_in_whole_words(seed: int) -> None:
    labels = labels_of(seed)
    caption = sample_caption(labels, np.random.default_rng(seed), empty_probability=0.0)
    words = caption.replace(",", " ").split()
    assert labels.subject.class_word in words
    assert set(words) <= set(caption_words())
    ids = TOKENIZER(caption).input_ids
    assert len(ids) == len(caption.replace(",", " ,").split()) + 2
    assert len(ids) <= MAX_TOKENS // 2
    named = [scene for scene in SCENES if f"in {scene} background" in caption]
    assert named in ([], [labels.view.scene])
    posed = [pose for pose in POSES if f"with {pose} pose" in caption]
    assert posed in ([], [labels.view.pose])


def test_captions_take_every_form() -> None:
    labels = labels_of(12).model_copy(update={"view": sample_view(1, "lying", "beach")})
    rng = np.random.default_rng(0)
    captions = [sample_caption(labels, rng) for _ in range(4000)]
    word = labels.subject.class_word
    assert f"a photo of a {word}" in captions
    assert f"a photo of a {word} with lying pose in beach background" in captions
    assert any(caption.endswith("on a beach") for caption in captions)
    assert 0.07 < captions.count("") / len(captions) < 0.13


@settings(deadline=None)
@given(text=st.text(max_size=40))
def test_any_text_survives_the_tokenizer(text: str) -> None:
    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    assert TOKENIZER.eos_token_id not in ids
    kept = "".join(TOKENIZER.convert_ids_to_tokens(ids)).replace("</w>", "")
    decoder = {letter: byte for byte, letter in byte_letters().items()}
    expected = "".join(unicodedata.normalize("NFC", text).lower().split())
    assert "".join(bytes(decoder[letter] for letter in kept).decode().split()) == expected


def byte_letters() -> dict[int, str]:
    """The printable stand-ins of byte-level BPE, as GPT-2 defines them."""
    kept = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in kept]
    return {byte: chr(byte) for byte in kept} | {byte: chr(256 + number) for number, byte in enumerate(others)}


@settings(deadline=None)
@given(words=st.lists(st.text(alphabet="abcdeé", min_size=1, max_size=8), min_size=1, max_size=12))
def test_merges_build_every_word_whatever_the_order(words: list[str]) -> None:
    merges = learn_merges(words)
    assert merges == learn_merges(words[::-1])
    assert len(set(merges)) == len(merges)


def test_the_saved_folder_reads_the_same(tmp_path: Path) -> None:
    save_tokenizer(TOKENIZER, tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    classic = CLIPTokenizer.from_pretrained(tmp_path)
    for text in ("a photo of a red mug on a beach", "", "[V] Zürich 日本 ☃"):
        assert TOKENIZER(text).input_ids == loaded(text).input_ids == classic(text).input_ids
    padded = loaded("a mug", padding="max_length", truncation=True).input_ids
    assert len(padded) == MAX_TOKENS
    assert padded[-1] == loaded.eos_token_id


def test_every_process_builds_the_same_vocabulary() -> None:
    assert build_tokenizer().get_vocab() == TOKENIZER.get_vocab()
    assert max(TOKENIZER.get_vocab().values()) == TOKENIZER.eos_token_id


@pytest.mark.parametrize("text", ["a photo of a mug with lying pose in beach background", "PHOTO of A Mug"])
def test_known_words_are_one_token_each(text: str) -> None:
    assert len(TOKENIZER(text, add_special_tokens=False).input_ids) == len(text.split())
