"""The prompt language."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detex_core.errors import InvalidInputError
from detex_core.prompt import (
    ATTRIBUTE_NAME,
    CONCEPT_NAME,
    MAX_PROMPT_CHARACTERS,
    AttributeWord,
    Part,
    Prompt,
    SubjectWord,
    Text,
    parse_prompt,
)


@pytest.mark.parametrize(
    ("prompt", "parts"),
    [
        ("", ()),
        ("a mug", (Text("a mug"),)),
        ("[my-mug] on a beach", (SubjectWord("my-mug"), Text(" on a beach"))),
        (
            "[a] with [a:pose:2] in [b:background:0]",
            (
                SubjectWord("a"),
                Text(" with "),
                AttributeWord("a", "pose", 2),
                Text(" in "),
                AttributeWord("b", "background", 0),
            ),
        ),
        (r"a \[boxed\] word", (Text("a [boxed] word"),)),
        (r"\[[a]\]", (Text("["), SubjectWord("a"), Text("]"))),
        (r"back\slash and \\[a]", (Text("back\\slash and \\"), SubjectWord("a"))),
        ("ends in \\", (Text("ends in \\"),)),
        ("[a][a]", (SubjectWord("a"), SubjectWord("a"))),
        ("[a:pose:9999]", (AttributeWord("a", "pose", 9999),)),
        ("多行\n[a]", (Text("多行\n"), SubjectWord("a"))),
    ],
)
def test_prompts_are_taken_apart(prompt: str, parts: tuple[Part, ...]) -> None:
    assert parse_prompt(prompt) == Prompt(parts)


@pytest.mark.parametrize(
    ("prompt", "given_"),
    [
        ("[", "'['"),
        ("a]", "']' at character 1"),
        ("[[a]]", "'[' at character 0"),
        ("[a", "'[' at character 0"),
        ("[]", "[]"),
        ("[ a ]", "[ a ]"),
        ("[A]", "[A]"),
        ("[1a]", "[1a]"),
        ("[a:pose]", "[a:pose]"),
        ("[a:pose:]", "[a:pose:]"),
        ("[a:pose:-1]", "[a:pose:-1]"),
        ("[a:pose:01]", "[a:pose:01]"),
        ("[a:pose:١]", "[a:pose:١]"),
        ("[a:pose:10000]", "[a:pose:10000]"),
        ("[a:pose:1:2]", "[a:pose:1:2]"),
        ("[a\n]", r"[a\n], where"),
        (f"[{'a' * 64}]", "[aaa"),
    ],
)
def test_what_is_no_prompt_is_told(prompt: str, given_: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        parse_prompt(prompt, field="negative_prompt")
    (violation,) = raised.value.violations
    assert violation.field == "negative_prompt"
    assert given_ in violation.given
    assert r"\[" in violation.accepted


def test_long_prompts() -> None:
    assert parse_prompt("a" * MAX_PROMPT_CHARACTERS).parts == (Text("a" * MAX_PROMPT_CHARACTERS),)
    with pytest.raises(InvalidInputError, match="must be at most 10,000 characters, got 10,001 characters"):
        parse_prompt("a" * (MAX_PROMPT_CHARACTERS + 1))
    assert len(parse_prompt("[a]" * 3_333).parts) == 3_333


def test_concepts_in_the_order_of_their_first_word() -> None:
    assert parse_prompt("[b:pose:0] [a] [b] [c]").concepts() == ("b", "a", "c")


CONCEPTS = st.from_regex(CONCEPT_NAME, fullmatch=True)
ATTRIBUTES = st.from_regex(ATTRIBUTE_NAME, fullmatch=True)
TEXTS = st.builds(Text, st.text(min_size=1, max_size=20) | st.text("[]\\:a ", min_size=1, max_size=20))
WORDS = st.builds(SubjectWord, CONCEPTS) | st.builds(AttributeWord, CONCEPTS, ATTRIBUTES, st.integers(0, 9_999))


def joined(parts: list[Part]) -> Prompt:
    """A prompt as the parser gives it: no two texts side by side."""
    kept: list[Part] = []
    for part in parts:
        if isinstance(part, Text) and kept and isinstance(kept[-1], Text):
            kept[-1] = Text(kept[-1].text + part.text)
        else:
            kept.append(part)
    return Prompt(tuple(kept))


@given(parts=st.lists(TEXTS | WORDS, max_size=6))
def test_a_prompt_that_is_written_is_read_back(parts: list[Part]) -> None:
    prompt = joined(parts)
    assert parse_prompt(str(prompt)) == prompt


@given(text=st.text(max_size=80) | st.text(alphabet="[]\\:-a0 " + string.ascii_lowercase, max_size=80))
def test_any_text_is_a_prompt_or_invalid_input(text: str) -> None:
    try:
        prompt = parse_prompt(text)
    except InvalidInputError as error:
        assert [violation.field for violation in error.violations] == ["prompt"]  # noqa: PT017
        return
    assert parse_prompt(str(prompt)) == prompt
    for first, second in zip(prompt.parts, prompt.parts[1:], strict=False):
        assert not (isinstance(first, Text) and isinstance(second, Text))
