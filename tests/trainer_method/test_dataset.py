from itertools import islice

import pytest
import torch

from detex_core.errors import InvalidInputError
from detex_diffusion.base_model import BaseModel
from detex_diffusion.latents import encode_images, to_pixels
from detex_trainer.intake.masks import mask_from_image
from detex_trainer.learning.photos.crops import Augmentation
from detex_trainer.learning.photos.dataset import MaskedPhoto, PhotoBatches, PhotoSet, prepare_photos, training_side
from tests.trainer_method.conftest import draw_photo


def prepare(base_model: BaseModel, *, seed: int = 0, with_features: bool = True, mirror: bool = False) -> PhotoSet:
    photos = []
    for index in range(3):
        picture, mask = draw_photo(index, width=40 + 9 * index, height=33)
        photos.append(MaskedPhoto(picture, mask_from_image(mask), f"caption {index}"))
    return prepare_photos(
        photos,
        base_model,
        16,
        5,
        Augmentation(mirror=mirror),
        torch.Generator().manual_seed(seed),
        with_features=with_features,
    )


def test_photos_of_any_size_become_tensors_of_one(base_model: BaseModel) -> None:
    photo_set = prepare(base_model)
    assert photo_set.latents.shape == (3, 5, 4, 8, 8)
    assert photo_set.masks.shape == photo_set.valid.shape == (3, 5, 1, 8, 8)
    assert photo_set.features.shape == (3, 5, 16)
    assert photo_set.captions == ("caption 0", "caption 1", "caption 2")
    assert photo_set.masks.amin() == 0
    assert photo_set.masks.amax() <= 1
    assert (photo_set.masks.mean(dim=(2, 3, 4)) > 0.05).all()


def test_the_first_version_is_the_photo_itself(base_model: BaseModel) -> None:
    photo_set = prepare(base_model)
    assert torch.equal(photo_set.latents[:, 0], prepare(base_model, seed=1).latents[:, 0])
    encoded = encode_images(base_model.vae, to_pixels(photo_set.pictures))
    torch.testing.assert_close(photo_set.latents[:, 0], encoded)
    torch.testing.assert_close(photo_set.features[:, 0], base_model.image_features(photo_set.pictures))
    assert photo_set.valid[:, 0].min() == 1


def test_versions_differ_and_follow_the_seed(base_model: BaseModel) -> None:
    photo_set, same, other = prepare(base_model), prepare(base_model), prepare(base_model, seed=1)
    assert torch.equal(photo_set.latents, same.latents)
    assert not torch.equal(photo_set.latents[:, 1:], other.latents[:, 1:])
    for version in range(1, 5):
        assert not torch.equal(photo_set.latents[:, 0], photo_set.latents[:, version])


def test_no_features_where_none_are_wanted(base_model: BaseModel) -> None:
    assert prepare(base_model, with_features=False).features.shape == (3, 5, 0)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 7])
def test_every_photo_comes_once_before_any_comes_again(base_model: BaseModel, batch_size: int) -> None:
    photo_set = prepare(base_model, with_features=False)
    batches = list(islice(PhotoBatches(photo_set, batch_size, torch.Generator().manual_seed(0)), 6))
    drawn = [index for batch in batches for index in batch.photo_indices]
    for start in range(0, len(drawn) - 2, 3):
        assert sorted(drawn[start : start + 3]) == [0, 1, 2]
    for batch in batches:
        assert batch.latents.shape == (batch_size, 4, 8, 8)
        for row, index in enumerate(batch.photo_indices):
            versions = [torch.equal(batch.latents[row], version) for version in photo_set.latents[index]]
            assert any(versions)
            assert torch.equal(batch.masks[row], photo_set.masks[index, versions.index(True)])


@pytest.mark.parametrize(("resolution", "side"), [(0, 16), (32, 32), (64, 64)])
def test_resolution(base_model: BaseModel, resolution: int, side: int) -> None:
    assert training_side(base_model, resolution) == side


def test_a_resolution_that_the_unet_cannot_halve_is_refused(base_model: BaseModel) -> None:
    with pytest.raises(InvalidInputError, match="a multiple of 4 for base model tiny") as caught:
        training_side(base_model, 34)
    assert caught.value.violations[0].field == "hyperparameters.resolution"
