"""Which words of a prompt speak of which subject."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detex_core.clauses import by_subject, clauses, prompt_of_subject
from detex_core.prompt import AttributeWord, Part, Prompt, SubjectWord, Text, parse_prompt

ALONE = [
    (
        "a red [my-mug] with dots next to a blue [my-vase] on a beach",
        {"my-mug": "a red [my-mug] with dots on a beach", "my-vase": "a blue [my-vase] on a beach"},
    ),
    (
        "a photo of [my-mug] and [my-vase] on a table",
        {"my-mug": "a photo of [my-mug] on a table", "my-vase": "a photo of [my-vase] on a table"},
    ),
    (
        "[my-mug] to the left of a tall [my-vase], in the snow",
        {"my-mug": "[my-mug], in the snow", "my-vase": "a tall [my-vase], in the snow"},
    ),
    (
        "[my-mug], [my-vase], and [my-bowl] on a wooden table, studio light",
        {
            "my-mug": "[my-mug] on a wooden table, studio light",
            "my-vase": "[my-vase] on a wooden table, studio light",
            "my-bowl": "[my-bowl] on a wooden table, studio light",
        },
    ),
    (
        "on a beach, [my-mug] in front of [my-vase]",
        {"my-mug": "on a beach, [my-mug]", "my-vase": "on a beach, [my-vase]"},
    ),
    ("[my-mug] red [my-vase]", {"my-mug": "[my-mug]", "my-vase": "red [my-vase]"}),
    (
        "[my-mug] with [my-mug:pose:1] and [my-vase] with [my-mug:pose:2] in [my-vase:background:0]",
        {
            "my-mug": "[my-mug] with [my-mug:pose:1] in [my-vase:background:0]",
            "my-vase": "[my-vase] with [my-mug:pose:2] in [my-vase:background:0]",
        },
    ),
    (
        "side by side: [my-mug] and [my-vase]",
        {"my-mug": "side by side: [my-mug]", "my-vase": "side by side: [my-vase]"},
    ),
]


@pytest.mark.parametrize(("prompt", "wanted"), ALONE, ids=[prompt for prompt, _ in ALONE])
def test_a_subject_alone(prompt: str, wanted: dict[str, str]) -> None:
    parsed = parse_prompt(prompt)
    assert {name: str(prompt_of_subject(parsed, name)) for name in wanted} == wanted


def test_clauses_say_whom_they_speak_of() -> None:
    prompt = parse_prompt("a red [my-mug] with dots next to [my-vase] on a beach with palms")
    told = [(clause.connective, clause.subject) for clause in clauses(prompt)]
    assert told == [("", "my-mug"), ("with", "my-mug"), ("next to", "my-vase"), ("on", None), ("with", None)]


def test_connectives_belong_to_the_scene() -> None:
    prompt, subjects = by_subject(parse_prompt("a red [my-mug] next to [my-vase]"))
    told = [(str(Prompt((part,))), subject) for part, subject in zip(prompt.parts, subjects, strict=True)]
    assert told == [
        ("a red ", "my-mug"),
        ("[my-mug]", "my-mug"),
        (" ", "my-mug"),
        ("next to", None),
        (" ", "my-vase"),
        ("[my-vase]", "my-vase"),
    ]


NAMES = ("one", "two", "three")
WORDS = st.lists(
    st.sampled_from(
        ["a", "red", "mug", "with", "and", "next", "to", "in", "front", "of", ",", ".", "(", "  ", "[", "的"]
    ),
    max_size=6,
).map(" ".join)
PARTS: st.SearchStrategy[Part] = st.one_of(
    WORDS.map(Text),
    st.sampled_from(NAMES).map(SubjectWord),
    st.builds(AttributeWord, st.sampled_from(NAMES), st.sampled_from(["pose", "background"]), st.integers(0, 3)),
)


@given(st.lists(PARTS, max_size=8))
def test_no_word_is_lost_and_no_other_subject_stays(parts: list[Part]) -> None:
    prompt = parse_prompt(str(Prompt(tuple(parts))))
    assert "".join(clause.connective + str(Prompt(clause.parts)) for clause in clauses(prompt)).replace(
        "\\", ""
    ) == str(prompt).replace("\\", "")
    cut, subjects = by_subject(prompt)
    assert str(cut) == str(prompt)
    assert len(subjects) == len(cut.parts)
    named = {part.concept for part in prompt.parts if isinstance(part, SubjectWord)}
    assert {subject for subject in subjects if subject is not None} <= named
    for name in named:
        alone = prompt_of_subject(prompt, name)
        assert {part.concept for part in alone.parts if isinstance(part, SubjectWord)} == {name}
        assert parse_prompt(str(alone)) == alone
