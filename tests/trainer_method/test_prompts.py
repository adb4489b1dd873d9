import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detex_core.prompt import parse_prompt
from detex_trainer.domain.attributes import parse_attributes
from detex_trainer.domain.prompts import (
    PREFIXES,
    random_prefix,
    random_subset,
    surroundings_prompt,
    training_prompt,
)

ATTRIBUTES = parse_attributes(["pose", "background", "lighting"])


@pytest.mark.parametrize(
    ("kept", "text"),
    [
        ("", "a photo of a [m]"),
        ("pose", "a photo of a [m] with [m:pose:2]"),
        ("background", "a photo of a [m] in [m:background:2]"),
        ("pose background", "a photo of a [m] with [m:pose:2] in [m:background:2]"),
        (
            "pose background lighting",
            "a photo of a [m] with [m:pose:2] in [m:background:2] with [m:lighting:2]",
        ),
    ],
)
def test_prompts_are_those_that_users_write(kept: str, text: str) -> None:
    attributes = [attribute for attribute in ATTRIBUTES if attribute.name in kept.split()]
    assert training_prompt("m", 2, attributes) == parse_prompt(text)


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        ("A red Mug, on a table", "A red [m] on a table in [m:background:0]"),
        ("coffee time", "a photo of a [m], coffee time in [m:background:0]"),
        ("mug", "[m] in [m:background:0]"),
        (r"an [odd] mug \ here", r"an \[odd\] [m] \ here in [m:background:0]"),
    ],
)
def test_captions_take_the_subject_word_for_the_class_word(caption: str, text: str) -> None:
    prompt = training_prompt("m", 0, ATTRIBUTES[1:2], caption=caption, class_word="mug")
    assert prompt == parse_prompt(text)


def test_class_words_of_two_words_are_found_in_captions() -> None:
    prompt = training_prompt("m", 0, (), caption="my coffee mug at home", class_word="coffee mug")
    assert prompt == parse_prompt("my [m] at home")


@given(caption=st.text(max_size=60))
def test_any_caption_makes_a_prompt_that_reads_the_same_when_written(caption: str) -> None:
    prompt = training_prompt("m", 0, ATTRIBUTES, caption=caption, class_word="mug")
    assert parse_prompt(str(prompt)) == prompt
    assert prompt.concepts() == ("m",)


def test_surroundings_prompts_say_the_plain_class_word() -> None:
    prompt = surroundings_prompt("m", 1, ATTRIBUTES[1:2], "mug")
    assert prompt == parse_prompt("a photo of a mug in [m:background:1]")


def test_subsets_keep_each_word_with_its_probability_and_the_order() -> None:
    generator = torch.Generator().manual_seed(3)
    subsets = [random_subset(ATTRIBUTES, 0.7, generator) for _ in range(2_000)]
    assert all(list(subset) == [a for a in ATTRIBUTES if a in subset] for subset in subsets)
    for attribute in ATTRIBUTES:
        # 4.4 standard deviations of a binomial share at 2,000 draws
        assert sum(attribute in subset for subset in subsets) / 2_000 == pytest.approx(0.7, abs=0.045)
    assert len(set(subsets)) == 8
    assert random_subset(ATTRIBUTES, 0.0, generator) == ()
    assert random_subset(ATTRIBUTES, 1.0, generator) == ATTRIBUTES


def test_half_of_the_prefixes_are_the_usual_one_and_all_occur() -> None:
    generator = torch.Generator().manual_seed(4)
    drawn = [random_prefix(generator) for _ in range(1_000)]
    assert set(drawn) == set(PREFIXES)
    assert drawn.count(PREFIXES[0]) == pytest.approx(500, abs=80)
