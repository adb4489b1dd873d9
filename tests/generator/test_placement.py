"""Which token of a prompt belongs to which place."""

from typing import Any

import pytest
import torch

from detex_core.memory_budget import MemoryBudget
from detex_core.prompt import Prompt, parse_prompt
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.regions import Box, RegionMode
from detex_diffusion.solver import Solver
from detex_diffusion.text import TokenizedPrompt, tokenize
from detex_generator.engine.intake.picture_memory import PictureMemory
from detex_generator.engine.intake.placement import check_composition
from detex_generator.request.generation_request import GenerationRequest
from detex_generator.request.picture_content import Composition, Region


def segments_of(base_model: BaseModel, text: str, class_words: dict[str, str], names: tuple[str, ...]) -> list[int]:
    """Segments of the tokens between start and end, where each of `names` has a place."""
    width = base_model.embedding_width
    concepts = {name: Concept(name, word, torch.zeros(1, width)) for name, word in class_words.items()}

    def read(prompt: Prompt, field: str) -> TokenizedPrompt:
        return tokenize(prompt, concepts, base_model.tokenizer, field=field)

    parsed = parse_prompt(text)
    place: Any = Box(0.0, 0.0, 0.5, 1.0)
    composition = Composition(tuple(Region(name, place, 1.0, Prompt(())) for name in names), RegionMode.JOINT)
    request = GenerationRequest(
        prompt=text,
        negative_prompt="",
        parsed_prompt=parsed,
        parsed_negative_prompt=Prompt(()),
        base_model=base_model.name,
        count=1,
        seed=0,
        steps=1,
        guidance_scale=1.0,
        solver=Solver.DDIM,
        width=16,
        height=16,
        preview_interval_steps=0,
        concept_versions={},
        composition=composition,
    )
    tokenized = read(parsed, "prompt")
    budget = MemoryBudget(1, what="the test", reason="TEST", longest_wait_seconds=60)
    memory = PictureMemory(budget, "default")
    checked = check_composition(request, composition, base_model, tokenized, read, memory)
    assert checked.segments is not None
    assert checked.segments.shape == tokenized.ids.shape
    assert set(checked.segments[tokenized.length - 1 :].tolist()) == {0}
    return checked.segments[1 : tokenized.length - 1].tolist()


NOUNS = {"one": "mug", "two": "red vase"}


@pytest.mark.parametrize(
    ("text", "names", "wanted"),
    [
        ("a red [one] and a blue [two] on a beach", ("one", "two"), [1] * 4 + [0] + [2] * 5 + [0] * 3),
        ("a red [one] and a blue [two] on a beach", ("two",), [0] * 5 + [1] * 5 + [0] * 3),
    ],
)
def test_words_around_a_subject_go_with_it(
    base_model: BaseModel, text: str, names: tuple[str, ...], wanted: list[int]
) -> None:
    assert segments_of(base_model, text, NOUNS, names) == wanted


def test_where_cutting_would_change_the_words_only_a_concepts_own_count(base_model: BaseModel) -> None:
    """`vase of snow` is one noun; cut at `of` it would be said twice."""
    assert segments_of(base_model, "a red [one] vase of snow", {"one": "vase of snow"}, ("one",)) == [0, 0, 1, 1, 1, 1]


def test_a_prompt_that_only_fits_uncut_is_taken(base_model: BaseModel) -> None:
    text = "[one] vase of snow" + " a" * (base_model.prompt_tokens - 2 - 4)
    told = segments_of(base_model, text, {"one": "vase of snow"}, ("one",))
    assert told[:5] == [1, 1, 1, 1, 0]
