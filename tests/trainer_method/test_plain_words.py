"""Which plain words a concept begins at: chosen by the embedded base model, and by one that knows nothing."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_showroom import SamplePhoto, sample_subjects
from detex_trainer.domain.attribute_vocabulary import AttributeVocabulary
from detex_trainer.domain.attributes import Attribute, Region, parse_attributes
from detex_trainer.domain.hyperparameters import resolve_hyperparameters
from detex_trainer.learning.methods.concept_words import (
    AttributeStart,
    ConceptShape,
    ConceptWords,
    SubjectStart,
    class_token_embeddings,
    plain_embedding,
)
from detex_trainer.learning.methods.plain_words import choose_plain_words
from detex_trainer.learning.methods.plain_words.subject_start import MOST_TOKENS, Description
from detex_trainer.learning.photos.crops import Augmentation
from detex_trainer.learning.photos.dataset import MaskedPhoto, PhotoSet, prepare_photos

pytestmark = pytest.mark.slow

VOCABULARY = AttributeVocabulary()
NONSENSE = ("kneeling", "jumping", "walking", "running", "sleeping", "crouching", "hanging", "falling", "curled")


@pytest.fixture(scope="module")
def showroom() -> BaseModel:
    return load_base_model(BaseModelSettings(name="showroom", source="embedded"))


def photo_set(photos: list[SamplePhoto], base_model: BaseModel) -> PhotoSet:
    masked = [
        MaskedPhoto(Image.open(each.image_path), np.asarray(Image.open(each.mask_path), dtype=np.float32) / 255)
        for each in photos
    ]
    generator = torch.Generator().manual_seed(0)
    return prepare_photos(masked, base_model, base_model.height, 1, Augmentation(), generator)


def attribute_starts(
    base_model: BaseModel,
    class_word: str,
    attributes: Sequence[Attribute],
    photos: PhotoSet,
    vocabulary: AttributeVocabulary,
    seed: int,
) -> dict[str, AttributeStart]:
    """What attribute words begin at where the subject begins at its class word."""
    knobs = resolve_hyperparameters("detex", {"subject_start": "class_word", "seed": seed})
    return choose_plain_words(base_model, class_word, attributes, photos, vocabulary, knobs).attributes


def subject_start(base_model: BaseModel, class_word: str, photos: PhotoSet, appearance: Sequence[str]) -> SubjectStart:
    """What the subject begins at, without words for anything else."""
    vocabulary = AttributeVocabulary(appearance=tuple(appearance))
    knobs = resolve_hyperparameters("detex", {"subject_start": "plain_words"})
    return choose_plain_words(base_model, class_word, (), photos, vocabulary, knobs).subject


def test_the_base_model_names_places(showroom: BaseModel) -> None:
    subject = sample_subjects()[0]
    photos = list(subject.photos)[:2]
    found = attribute_starts(
        showroom, subject.class_word, parse_attributes(["background"]), photo_set(photos, showroom), VOCABULARY, 0
    )["background"]
    assert found.words == tuple(each.scene for each in photos)
    for word, embedding in zip(found.words, found.embeddings, strict=True):
        torch.testing.assert_close(embedding, plain_embedding(showroom, word))


def test_every_attribute_begins_at_a_word_of_its_region_or_at_its_noun(base_model: BaseModel) -> None:
    attributes = parse_attributes(["pose", "background", "lighting"])
    photos = photo_set(list(sample_subjects()[1].photos)[:2], base_model)
    found = attribute_starts(base_model, "mug", attributes, photos, VOCABULARY, 3)
    again = attribute_starts(base_model, "mug", attributes, photos, VOCABULARY, 3)
    assert set(found) == {"pose", "background", "lighting"}
    for attribute in attributes:
        start = found[attribute.name]
        assert start.words == again[attribute.name].words
        assert torch.equal(start.embeddings, again[attribute.name].embeddings)
        assert start.embeddings.shape == (2, base_model.embedding_width)
        for word, embedding in zip(start.words, start.embeddings, strict=True):
            assert word in ("", *VOCABULARY.of(attribute.region))
            torch.testing.assert_close(embedding, plain_embedding(base_model, word or attribute.name))


def test_nothing_is_chosen_where_there_are_no_attributes(base_model: BaseModel) -> None:
    photos = photo_set(list(sample_subjects()[1].photos)[:1], base_model)
    assert attribute_starts(base_model, "mug", (), photos, VOCABULARY, 0) == {}


def test_only_words_of_the_vocabulary_are_begun_at(showroom: BaseModel) -> None:
    subject = sample_subjects()[0]
    photos = photo_set(list(subject.photos)[:2], showroom)
    attributes = parse_attributes(["pose", "background"])
    scenes = {each.scene for each in list(subject.photos)[:2]}
    strange = AttributeVocabulary(
        subject=(), background=tuple(word for word in VOCABULARY.background if word not in scenes)
    )
    found = attribute_starts(showroom, subject.class_word, attributes, photos, strange, 0)
    assert found["pose"].words == ("", "")
    assert not scenes & set(found["background"].words)
    assert set(found["background"].words) <= {"", *strange.background}


def test_words_that_say_nothing_are_not_begun_at(showroom: BaseModel) -> None:
    subject = sample_subjects()[0]
    photos = list(subject.photos)[:2]
    attributes = parse_attributes(["background"])
    for scenes, expected in (((), ("", "")), ((photos[0].scene,), (photos[0].scene, ""))):
        vocabulary = AttributeVocabulary(background=(*NONSENSE, *scenes))
        found = attribute_starts(showroom, subject.class_word, attributes, photo_set(photos, showroom), vocabulary, 0)[
            "background"
        ]
        assert found.words == expected


@pytest.mark.parametrize("region", list(Region))
def test_words_of_a_region_are_different(region: Region) -> None:
    words = VOCABULARY.of(region)
    assert len(set(words)) == len(words)
    assert all(word == word.strip().lower() and word for word in words)


def test_a_vocabulary_replaces_the_regions_that_it_names() -> None:
    own = AttributeVocabulary.model_validate_json('{"background": ["海辺", " 海辺 ", "森"]}')
    assert own.of(Region.BACKGROUND) == ("海辺", "森")
    assert own.of(Region.SUBJECT) == VOCABULARY.subject


@pytest.mark.parametrize(
    "wrong", ['{"background": [""]}', '{"background": ["' + "x" * 65 + '"]}', '{"places": ["sea"]}']
)
def test_wrong_vocabularies_are_refused(wrong: str) -> None:
    with pytest.raises(ValidationError):
        AttributeVocabulary.model_validate_json(wrong)


COLOURS = ("white", "grey", "red", "yellow", "green", "blue", "purple", "pink", "brown", "orange", "black")


@pytest.mark.parametrize("name", ["green-mug", "pink-teapot", "red-clock"])
def test_the_base_model_describes_the_subject(showroom: BaseModel, name: str) -> None:
    subject = next(each for each in sample_subjects() if each.name == name)
    labels = subject.photos[0].labels["subject"]
    found = subject_start(
        showroom, subject.class_word, photo_set(list(subject.photos), showroom), (*COLOURS, *NONSENSE)
    )
    said = set(found.words.split())
    assert labels["main_colour"] in said
    assert said <= {labels["main_colour"], labels["accent_colour"], subject.class_word, "and", "with", "details"}
    tokens = [class_token_embeddings(showroom, word) for word in found.words.split()]
    torch.testing.assert_close(found.embeddings, torch.cat(tokens))


def test_a_subject_that_no_word_describes_begins_at_its_class_word(showroom: BaseModel) -> None:
    subject = sample_subjects()[0]
    found = subject_start(showroom, subject.class_word, photo_set(list(subject.photos)[:2], showroom), NONSENSE)
    assert found.words == ""
    assert found.embeddings.shape == (0, showroom.embedding_width)


@pytest.mark.parametrize("words", [(), ("red",), ("red", "blue")])
def test_short_vocabularies_are_taken_as_they_are(base_model: BaseModel, words: tuple[str, ...]) -> None:
    photos = photo_set(list(sample_subjects()[1].photos)[:2], base_model)
    found = subject_start(base_model, "mug", photos, words)
    assert set(found.words.split()) <= {*words, "mug", "and", "with", "details"}
    assert len(found.embeddings) <= MOST_TOKENS


WORDS = ("red", "blue", "striped")


def test_descriptions_read_as_english() -> None:
    red = Description(("red",))
    assert {each.text("toy car") for _, each in Description().longer(WORDS)} == set(WORDS)
    assert {each.text("toy car") for _, each in red.longer(WORDS)} == {
        *("red blue", "red striped"),
        *("red and blue", "red and striped"),
        *("red toy car with blue details", "red toy car with striped details"),
    }
    detailed = Description(("red",), details="blue")
    assert {each.text("mug") for _, each in detailed.longer(WORDS)} == {"red striped mug with blue details"}
    both = Description(("red",), second="blue")
    assert {each.text("mug") for _, each in both.longer(WORDS)} == {"red and blue mug with striped details"}


@given(st.lists(st.sampled_from(["red", "blue", "striped", "old", "tall"]), max_size=4))
def test_a_longer_description_says_one_thing_more(base_model: BaseModel, choices: list[str]) -> None:
    description = Description()
    for word in choices:
        longer = [each for _, each in description.longer([word])]
        for each in longer:
            assert len(each.traits) == len(description.traits) + 1
            assert set(each.traits) == {*description.traits, word}
            assert len(each.embeddings(base_model, "mug")) > len(description.embeddings(base_model, "mug"))
        assert longer or word in description.traits or description.second
        description = longer[-1] if longer else description


def test_the_subject_has_as_many_tokens_as_its_words(base_model: BaseModel) -> None:
    description = Description(("red",), details="blue")
    start = SubjectStart(description.text("mug"), description.embeddings(base_model, "mug"))
    k = len(start.embeddings)
    for tokens, expected in ((1, k), (k, k), (k + 2, k + 2)):
        shape = ConceptShape(subject_tokens=tokens)
        generator = torch.Generator().manual_seed(0)
        words = ConceptWords(base_model, "mug", shape, torch.zeros(2, 4), generator, subject_start=start)
        assert words.subject_tokens == expected
        torch.testing.assert_close(words.subject.detach()[-len(start.embeddings) :], start.embeddings)
