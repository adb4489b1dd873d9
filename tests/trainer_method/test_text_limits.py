"""What a base model cannot read is told by photo and field, before anything is trained."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detex_core.errors import InvalidInputError
from detex_core.prompt import AttributeWord, Prompt, SubjectWord, Text
from detex_diffusion.base_model import BaseModel
from detex_diffusion.concept import Concept
from detex_diffusion.text import tokenize
from detex_trainer.base_models.description import DescriptionRequest, describe
from detex_trainer.domain.attributes import parse_attributes
from detex_trainer.domain.hyperparameters import Method, resolve_hyperparameters
from detex_trainer.domain.prompts import training_prompt
from detex_trainer.intake.text_limits import PhotoCaption, TextReader, check_job_texts, prompt_length
from tests.trainer_method.conftest import make_training_set
from tests.trainer_method.learners import make_learner

WORDS = st.sampled_from(["mug", "a red mug", "陶器のマグカップ", "café", "in", " ", ", ", "green striped ", "の"])


@pytest.fixture(scope="module")
def concept(base_model: BaseModel) -> Concept:
    learner, _ = make_learner(
        base_model, make_training_set(), "detex", "pose wide_view", attribute_start="noun", subject_start="class_word"
    )
    return learner.concept()


@pytest.fixture(scope="module")
def reader(base_model: BaseModel) -> TextReader:
    def tokens(text: str) -> list[int]:
        return list(base_model.tokenizer(text, add_special_tokens=False)["input_ids"])

    return TextReader("tiny", tokens, base_model.tokenizer.model_max_length - 2)


PARTS = st.one_of(
    WORDS.map(Text),
    st.just(SubjectWord("x")),
    st.sampled_from(["pose", "wide_view"]).map(lambda a: AttributeWord("x", a, 1)),
)


@given(parts=st.lists(PARTS, max_size=6))
@settings(max_examples=150, deadline=None)
def test_prompts_are_as_long_as_the_text_encoder_finds_them(
    base_model: BaseModel, concept: Concept, reader: TextReader, parts: list[Text | SubjectWord | AttributeWord]
) -> None:
    prompt = Prompt(tuple(parts))
    length = prompt_length(prompt, reader.tokens, concept.class_word, concept.subject_tokens)
    try:
        found = tokenize(prompt, {"x": concept}, base_model.tokenizer).length - 2
    except InvalidInputError:
        assert length > reader.limit
    else:
        assert length == found


def test_a_description_reads_text_as_the_base_model_does(model_settings, reader: TextReader, tmp_path) -> None:
    request = DescriptionRequest(
        base_model=model_settings, object_store_url=f"folder://{tmp_path}", work_folder=tmp_path, allow_downloads=False
    )
    description = describe(request)
    described = type(description).model_validate_json(description.model_dump_json()).text_reader()
    assert described.limit == reader.limit
    for text in ("a photo of a mug", "陶器のマグカップ", "cafe\u0301", "  two  spaces, 3-in-1", "", "x" * 500):
        assert described.tokens(text) == reader.tokens(text)
    assert description.size_multiple == 4
    assert description.has_image_encoder


@given(count=st.integers(1, 60), method=st.sampled_from([Method.DETEX, Method.TEXTUAL_INVERSION]), plain=st.booleans())
@settings(max_examples=60, deadline=None)
def test_what_is_accepted_can_be_read_and_what_is_refused_cannot(
    base_model: BaseModel, reader: TextReader, count: int, method: Method, plain: bool
) -> None:
    overrides = {"subject_start": "plain_words" if plain else "class_word"}
    hyperparameters = resolve_hyperparameters(method, overrides)
    names = ("pose", "background") if method is Method.DETEX else ()
    caption = PhotoCaption("mug, " + "red " * count, "photos[0].caption", "photo 0 (cup.jpg)")
    prompt = training_prompt("x", 0, parse_attributes(names), caption=caption.text, class_word="mug")
    subject_tokens = max(8, hyperparameters.subject_tokens) if plain else hyperparameters.subject_tokens
    fits = prompt_length(prompt, reader.tokens, "mug", subject_tokens) <= reader.limit
    try:
        check_job_texts(reader, "mug", [caption], method, hyperparameters, names)
    except InvalidInputError as error:
        (violation,) = error.violations
        assert not fits
        assert violation.sentence().startswith("photo 0 (cup.jpg): photos[0].caption: given ")
    else:
        assert fits


@pytest.mark.parametrize(
    ("class_word", "names", "field"),
    [("龘" * 64, (), "class_word"), ("mug", tuple(letter * 32 for letter in "abcdefgh"), "attributes")],
)
def test_class_words_and_attribute_words_that_cannot_be_read(
    reader: TextReader, class_word: str, names: tuple[str, ...], field: str
) -> None:
    hyperparameters = resolve_hyperparameters("detex", {})
    with pytest.raises(InvalidInputError) as refused:
        check_job_texts(reader, class_word, (), Method.DETEX, hyperparameters, names)
    assert [each.field for each in refused.value.violations] == [field]
