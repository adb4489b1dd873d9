from collections.abc import Sequence

import pytest
import torch
from diffusers import StableDiffusionPipeline
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from detex_core.errors import InvalidInputError
from detex_core.prompt import Prompt, Text, parse_prompt
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept, Word
from detex_diffusion.text import PromptWord, TokenizedPrompt, encode, tokenize, word_embeddings
from tests.tiny_models import WORDS

WIDTH = 24


def concept(seed: int, class_word: str = "mug", subject_tokens: int = 1, **attributes: int) -> Concept:
    generator = torch.Generator().manual_seed(seed)
    return Concept(
        reference=f"test/{seed}",
        class_word=class_word,
        subject=torch.randn(subject_tokens, WIDTH, generator=generator),
        attributes={name: torch.randn(count, WIDTH, generator=generator) for name, count in attributes.items()},
    )


CONCEPTS = {
    "my-mug": concept(1, "mug", 1, pose=4, background=4),
    "my-pot": concept(2, "coffee pot", 2, pose=3, floor_pattern=2),
}


def tokens_of(base_model: BaseModel, text: str) -> list[int]:
    return list(base_model.tokenizer(text, add_special_tokens=False)["input_ids"])


def run(base_model: BaseModel, prompt: str) -> TokenizedPrompt:
    return tokenize(parse_prompt(prompt), CONCEPTS, base_model.tokenizer)


def body(base_model: BaseModel, prompt: str) -> list[tuple[object, int]]:
    """Per token between start and end: the token's text or the word that stands there, and the owner."""
    tokenized = run(base_model, prompt)
    found: list[tuple[object, int]] = []
    for i in range(1, tokenized.length - 1):
        row = int(tokenized.word_rows[i])
        text = base_model.tokenizer.convert_ids_to_tokens(int(tokenized.ids[i]))
        found.append((tokenized.words[row].word if row >= 0 else text, int(tokenized.owners[i])))
    return found


def plain(base_model: BaseModel, text: str, owner: int = -1) -> list[tuple[object, int]]:
    return [(token, owner) for token in base_model.tokenizer.convert_ids_to_tokens(tokens_of(base_model, text))]


def test_a_subject_brings_its_class_word(base_model: BaseModel) -> None:
    wanted = [*plain(base_model, "a photo of a"), (Word(None, 0), 0), *plain(base_model, "mug", 0)]
    assert body(base_model, "a photo of a [my-mug]") == wanted
    assert body(base_model, "a photo of a [my-mug] mug") == wanted
    assert body(base_model, "a photo of a [my-mug] Mug") == wanted
    tail = plain(base_model, ", on a beach")
    assert body(base_model, "a photo of a [my-mug], on a beach") == [*wanted, *tail]
    assert body(base_model, "a photo of a [my-mug]mug, on a beach") == [*wanted, *tail]


def test_another_word_that_begins_like_the_class_word_does_not_stand_for_it(base_model: BaseModel) -> None:
    wanted = [(Word(None, 0), 0), *plain(base_model, "mug", 0), *plain(base_model, "mugs")]
    assert body(base_model, "[my-mug] mugs") == wanted


def test_several_tokens_and_class_words_of_two_words(base_model: BaseModel) -> None:
    subject = [(Word(None, 0), 0), (Word(None, 1), 0), *plain(base_model, "coffee pot", 0)]
    assert body(base_model, "[my-pot] coffee pot on snow") == [*subject, *plain(base_model, "on snow")]
    assert body(base_model, "[my-pot] coffee on snow") == [*subject, *plain(base_model, "coffee on snow")]


def test_attributes_bring_their_noun(base_model: BaseModel) -> None:
    pose = [(Word("pose", 2), 0), *plain(base_model, "pose", 0)]
    assert body(base_model, "with [my-mug:pose:2]") == [*plain(base_model, "with"), *pose]
    assert body(base_model, "with [my-mug:pose:2] pose in snow") == [
        *plain(base_model, "with"),
        *pose,
        *plain(base_model, "in snow"),
    ]
    pattern = [(Word("floor_pattern", 1), 0), *plain(base_model, "floor pattern", 0)]
    assert body(base_model, "[my-pot:floor_pattern:1]") == pattern
    assert body(base_model, "[my-pot:floor_pattern:1] floor pattern") == pattern


def test_words_in_a_row_keep_their_nouns(base_model: BaseModel) -> None:
    assert body(base_model, "[my-mug] [my-pot] [my-mug:pose:0]") == [
        (Word(None, 0), 0),
        *plain(base_model, "mug", 0),
        (Word(None, 0), 1),
        (Word(None, 1), 1),
        *plain(base_model, "coffee pot", 1),
        (Word("pose", 0), 0),
        *plain(base_model, "pose", 0),
    ]


def test_a_word_said_twice_has_one_embedding(base_model: BaseModel) -> None:
    tokenized = run(base_model, "[my-mug] and [my-mug] and [my-mug:pose:1]")
    assert tokenized.words == (PromptWord(0, Word(None, 0)), PromptWord(0, Word("pose", 1)))
    assert [i for i in tokenized.word_rows.tolist() if i >= 0] == [0, 0, 1]


def test_positions(base_model: BaseModel) -> None:
    tokenized = run(base_model, "[my-mug] with [my-mug:pose:1] pose in [my-mug:background:0] and [my-pot]")
    names = [base_model.tokenizer.convert_ids_to_tokens(i) for i in tokenized.ids.tolist()]
    subject = tokenized.positions("my-mug").tolist()
    assert subject == [1]
    assert tokenized.positions("my-mug", with_noun=True).tolist() == [1, *range(2, names.index("with</w>"))]
    pose = tokenized.positions("my-mug", "pose", with_noun=True).tolist()
    assert pose == [names.index("pose</w>") - 1, names.index("pose</w>")]
    assert len(tokenized.positions("my-pot")) == 2
    assert tokenized.positions("my-pot", "pose").tolist() == []


def test_framing(base_model: BaseModel, base_models: dict[str, BaseModel]) -> None:
    tokenized = run(base_model, "a [my-mug]")
    tokenizer = base_model.tokenizer
    assert tokenized.ids.shape == tokenized.owners.shape == tokenized.word_rows.shape == (77,)
    assert tokenized.ids[0] == tokenizer.bos_token_id
    assert tokenized.ids[tokenized.length - 1] == tokenizer.eos_token_id
    padding = 0 if base_model is base_models["sd2"] else tokenizer.eos_token_id
    assert set(tokenized.ids[tokenized.length :].tolist()) == {padding}
    assert int(tokenized.attention_mask.sum()) == tokenized.length
    assert tokenized.owners[0] == -1
    assert set(tokenized.owners[tokenized.length - 1 :].tolist()) == {-1}


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("a [my-cup]", r"must be one of my-mug, my-pot, got concept 'my-cup'"),
        ("a [my-mug:light:0]", r"must be an attribute of 'my-mug' \(background, pose\), got \[my-mug:light:0\]"),
        ("a [my-mug:pose:4]", r"must be a word with photo 0 to 3, got \[my-mug:pose:4\]"),
        ("x " * 76, r"prompts\[1\]: must be at most 75 tokens, .*, got 76"),
        ("x " * 74 + "[my-mug]", r"got 7\d tokens"),
    ],
)
def test_bad_prompts(base_model: BaseModel, prompt: str, sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence) as error:
        tokenize(parse_prompt(prompt), CONCEPTS, base_model.tokenizer, field="prompts[1]")
    assert [violation.field for violation in error.value.violations] == ["prompts[1]"]


def test_a_prompt_as_long_as_can_be(base_model: BaseModel) -> None:
    tokenized = run(base_model, "x " * 75)
    assert tokenized.length == 77
    assert tokenized.ids[-1] == base_model.tokenizer.eos_token_id


def test_the_limit_holds_after_a_pipeline_has_cut_a_prompt(base_model: BaseModel) -> None:
    base_model.tokenizer("x " * 200, padding="max_length", max_length=77, truncation=True)
    with pytest.raises(InvalidInputError, match="200 tokens"):
        run(base_model, "x " * 200)


SPEECH = st.lists(
    st.one_of(
        st.sampled_from(WORDS), st.text(max_size=6), st.sampled_from([" ", ", ", "<|endoftext|>", "'s", "\n", "É"])
    ),
    max_size=14,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=SPEECH)
def test_plain_text_has_the_tokens_of_the_whole_text(base_models: dict[str, BaseModel], pieces: Sequence[str]) -> None:
    text = " ".join(pieces)
    for model in base_models.values():
        wanted = model.tokenizer(text, padding="max_length", max_length=77, truncation=False, return_tensors="pt")
        prompt = Prompt((Text(text),) if text else ())
        if wanted["input_ids"].shape[1] > 77:
            with pytest.raises(InvalidInputError):
                tokenize(prompt, {}, model.tokenizer)
            continue
        tokenized = tokenize(prompt, {}, model.tokenizer)
        assert torch.equal(tokenized.ids, wanted["input_ids"][0])
        assert torch.equal(tokenized.attention_mask, wanted["attention_mask"][0])


PARTS = st.lists(
    st.one_of(
        st.sampled_from(["[my-mug]", "[my-pot]", "[my-mug:pose:0]", "[my-pot:floor_pattern:1]", "mug", "pose", " , "]),
        st.sampled_from(WORDS),
    ),
    max_size=12,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=PARTS)
def test_what_holds_for_every_prompt(base_models: dict[str, BaseModel], parts: Sequence[str]) -> None:
    text = " ".join(parts)
    tokenized = run(base_models["sd1"], text)
    owned = tokenized.owners >= 0
    assert bool((owned | (tokenized.word_rows < 0)).all())
    used = sum(part.startswith("[") for part in parts) + sum(part == "[my-pot]" for part in parts)
    assert int((tokenized.word_rows >= 0).sum()) == used
    assert set(tokenized.word_rows.tolist()) - {-1} == set(range(len(tokenized.words)))
    if not tokenized.concepts:
        assert tokenized.ids.tolist() == base_models["sd1"].tokenizer(text, padding="max_length")["input_ids"]


@pytest.mark.parametrize("masked", [False, True])
def test_hidden_states_are_those_of_the_pipeline_bit_for_bit(base_model: BaseModel, masked: bool) -> None:
    pipeline = StableDiffusionPipeline(
        base_model.vae,
        base_model.text_encoder,
        base_model.tokenizer,
        base_model.unet,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    config = base_model.text_encoder.config
    config.use_attention_mask = masked
    try:
        prompts = ["a red mug on a beach", "", "snow, in a forest!"]
        wanted, unconditional = pipeline.encode_prompt(prompts, "cpu", 1, True)
        tokenized = [run(base_model, prompt) for prompt in prompts]
        assert torch.equal(encode(base_model, tokenized), wanted)
        assert torch.equal(encode(base_model, [run(base_model, "")] * 3), unconditional)
    finally:
        config.use_attention_mask = False


def test_embeddings_stand_where_their_words_do(base_model: BaseModel) -> None:
    """The same as the text encoder whose table of embeddings has been written over."""
    tokenized = run(base_model, "a [my-mug] with [my-mug:pose:3] and [my-pot]")
    embeddings = word_embeddings(tokenized, CONCEPTS)
    assert embeddings is not None
    table = base_model.text_encoder.embeddings.token_embedding.weight
    saved = table.clone()
    spare = 300  # ids that this prompt does not use otherwise
    assert not set(range(spare, spare + len(tokenized.words))) & set(tokenized.ids.tolist())
    ids = torch.where(tokenized.word_rows >= 0, tokenized.word_rows + spare, tokenized.ids)
    with torch.no_grad():
        table[spare : spare + len(tokenized.words)] = embeddings
        wanted = base_model.text_encoder(ids.unsqueeze(0)).last_hidden_state
        table.copy_(saved)
    assert torch.equal(encode(base_model, [tokenized], [embeddings]), wanted)
    other = encode(base_model, [tokenized], [embeddings.flip(0)])
    assert float((other - wanted).abs().max()) > 0.1


def test_gradients_of_embeddings_are_those_of_the_table(base_model: BaseModel) -> None:
    tokenized = run(base_model, "a [my-mug] with [my-mug:pose:3] and [my-mug]")
    embeddings = word_embeddings(tokenized, CONCEPTS)
    assert embeddings is not None
    embeddings.requires_grad_()
    readout = torch.randn(1, 77, WIDTH, generator=torch.Generator().manual_seed(3))
    (got,) = torch.autograd.grad((encode(base_model, [tokenized], [embeddings]) * readout).sum(), embeddings)

    table = base_model.text_encoder.embeddings.token_embedding.weight
    saved = table.clone()
    ids = torch.where(tokenized.word_rows >= 0, tokenized.word_rows + 300, tokenized.ids)
    with torch.no_grad():
        table[300:302] = embeddings
    table.requires_grad_()
    (whole,) = torch.autograd.grad((base_model.text_encoder(ids[None]).last_hidden_state * readout).sum(), table)
    table.requires_grad_(False)
    table.copy_(saved)
    torch.testing.assert_close(got, whole[300:302])
    assert float(got.abs().min(dim=1).values.max()) > 0


def test_a_batch_is_its_prompts(base_model: BaseModel) -> None:
    prompts = [run(base_model, text) for text in ("[my-pot] on snow", "a mug", "[my-mug:pose:0] of [my-pot]")]
    embeddings = [word_embeddings(prompt, CONCEPTS) for prompt in prompts]
    together = encode(base_model, prompts, embeddings)
    for i, prompt in enumerate(prompts):
        alone = encode(base_model, [prompt], [embeddings[i]])[0]
        torch.testing.assert_close(together[i], alone, rtol=1e-5, atol=1e-5)


def test_embeddings_must_fit_their_prompt(base_model: BaseModel) -> None:
    tokenized = run(base_model, "[my-mug] on [my-pot]")
    with pytest.raises(ValueError, match="3 words"):
        encode(base_model, [tokenized], [torch.zeros(2, WIDTH)])
    with pytest.raises(ValueError, match="3 words"):
        encode(base_model, [tokenized])
