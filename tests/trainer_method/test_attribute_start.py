"""Which plain words attribute words begin at: chosen by the embedded base model, and by one that knows nothing."""

import numpy as np
import pytest
import torch
from PIL import Image

from detex_core.settings import BaseModelSettings
from detex_diffusion.base_model import BaseModel, load_base_model
from detex_showroom import SamplePhoto, sample_subjects
from detex_trainer.attribute_vocabulary import vocabulary
from detex_trainer.attributes import Region, parse_attributes
from detex_trainer.crops import Augmentation
from detex_trainer.dataset import MaskedPhoto, PhotoSet, prepare_photos
from detex_trainer.methods.attribute_start import attribute_starts, plain_embedding


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


def test_the_base_model_names_places(showroom: BaseModel) -> None:
    subject = sample_subjects()[0]
    photos = list(subject.photos)[:2]
    found = attribute_starts(
        showroom, subject.class_word, parse_attributes(["background"]), photo_set(photos, showroom), 0
    )["background"]
    assert found.words == tuple(each.scene for each in photos)
    for word, embedding in zip(found.words, found.embeddings, strict=True):
        torch.testing.assert_close(embedding, plain_embedding(showroom, word))


def test_every_attribute_begins_at_a_word_of_its_region_or_at_its_noun(base_model: BaseModel) -> None:
    attributes = parse_attributes(["pose", "background", "lighting"])
    photos = photo_set(list(sample_subjects()[1].photos)[:2], base_model)
    found = attribute_starts(base_model, "mug", attributes, photos, 3)
    again = attribute_starts(base_model, "mug", attributes, photos, 3)
    assert set(found) == {"pose", "background", "lighting"}
    for attribute in attributes:
        start = found[attribute.name]
        assert start.words == again[attribute.name].words
        assert torch.equal(start.embeddings, again[attribute.name].embeddings)
        assert start.embeddings.shape == (2, base_model.embedding_width)
        for word, embedding in zip(start.words, start.embeddings, strict=True):
            assert word in ("", *vocabulary(attribute.region))
            torch.testing.assert_close(embedding, plain_embedding(base_model, word or attribute.name))


def test_nothing_is_chosen_where_there_are_no_attributes(base_model: BaseModel) -> None:
    photos = photo_set(list(sample_subjects()[1].photos)[:1], base_model)
    assert attribute_starts(base_model, "mug", (), photos, 0) == {}


@pytest.mark.parametrize("region", list(Region))
def test_words_of_a_region_are_different(region: Region) -> None:
    words = vocabulary(region)
    assert len(set(words)) == len(words)
    assert all(word == word.strip().lower() and word for word in words)
