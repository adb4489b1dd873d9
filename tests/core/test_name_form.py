"""Names: what is one, and errors that say which character of a text is at fault."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detex_core.errors import InvalidInputError
from detex_core.name_form import NameForm
from detex_core.prompt import ATTRIBUTE_NAMES, CONCEPT_NAMES, parse_prompt
from detex_core.tenancy import TENANT_NAMES, checked_tenant

FORMS = st.sampled_from([CONCEPT_NAMES, ATTRIBUTE_NAMES, TENANT_NAMES])


@pytest.mark.parametrize(
    ("form", "text", "given"),
    [
        (CONCEPT_NAMES, "", "''"),
        (CONCEPT_NAMES, "my_mug", "'my_mug', where '_' is not allowed"),
        (CONCEPT_NAMES, "My-mug", "'My-mug', where 'M' is not allowed"),
        (CONCEPT_NAMES, "1st-mug", "'1st-mug', which begins with '1'"),
        (CONCEPT_NAMES, "m\u0430g", "'m\u0430g', where '\u0430' (U+0430) is not allowed"),
        (CONCEPT_NAMES, "mug\n", "'mug\\n', where '\\n' (U+000A) is not allowed"),
        (CONCEPT_NAMES, "m" * 64, f"'{'m' * 29}'..., which has 64 characters"),
        (CONCEPT_NAMES, "m" * 60 + "_", f"'{'m' * 29}'..., where '_' is not allowed"),
        (ATTRIBUTE_NAMES, "back ground", "'back ground', where ' ' is not allowed"),
        (TENANT_NAMES, "-shop", "'-shop', which begins with '-'"),
    ],
)
def test_what_is_wrong_is_said(form: NameForm, text: str, given: str) -> None:
    assert not form.is_name(text)
    assert form.given(text) == given


@given(FORMS, st.text(max_size=80))
def test_every_text_is_a_name_or_has_a_fault(form: NameForm, text: str) -> None:
    assert form.is_name(text) == (form.pattern.fullmatch(text) is not None)
    if text and not form.is_name(text):
        assert "not allowed" in form.fault(text) or "begins" in form.fault(text) or len(text) > form.longest


@given(st.from_regex(CONCEPT_NAMES.pattern, fullmatch=True), st.data())
def test_one_wrong_character_is_the_one_that_is_named(name: str, data: st.DataObject) -> None:
    wrong = data.draw(st.sampled_from("_.A/ \u00e9\u202e\0"))
    position = data.draw(st.integers(0, len(name) - 1))
    given = CONCEPT_NAMES.given(name[:position] + wrong + name[position + 1 :])
    assert f", where {wrong!r}" in given
    assert wrong.isascii() == ("U+" not in given) or wrong == "\0"


def test_tenants_and_words_of_prompts_say_it_too() -> None:
    with pytest.raises(
        InvalidInputError, match=r"detex-tenant: must be 1 to 63 of .*, got 'my_shop', where '_' is not allowed\."
    ):
        checked_tenant("my_shop")
    with pytest.raises(
        InvalidInputError,
        match=r"prompt: must be .*, got \[my_mug\], where '_' is not allowed; a concept name is 1 to 63 of",
    ):
        parse_prompt("[my_mug] on a beach")
    with pytest.raises(
        InvalidInputError, match=r"\[mug:Pose:0\], where 'P' is not allowed; an attribute name is 1 to 32"
    ):
        parse_prompt("[mug:Pose:0]")
