import pytest
import torch

from detex_trainer.learning.methods.mappers import AttributeMapper, FeatureNormalization, MapperShape

FEATURES, WIDTH = 12, 6
PHOTOS = torch.arange(4)


def features(photos: int = 4, seed: int = 0) -> torch.Tensor:
    """Features as of one subject: nearly alike."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(FEATURES, generator=generator) + 0.05 * torch.randn(photos, FEATURES, generator=generator)


def mapper(depth: int = 2, *, fixed_norm: bool = False, seed: int = 0, scale: float = 1.0) -> AttributeMapper:
    starts = scale * torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(5))
    shape = MapperShape(depth=depth, width=16, fixed_norm=fixed_norm)
    return AttributeMapper(FEATURES, starts, shape, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("fixed_norm", [False, True])
def test_every_photo_begins_at_an_embedding_of_its_own(depth: int, fixed_norm: bool) -> None:
    model = mapper(depth, fixed_norm=fixed_norm)
    torch.testing.assert_close(model(features(), PHOTOS), model.starts)
    torch.testing.assert_close(model(features()[2], torch.tensor(1)), model.starts[1])
    linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert len(linears) == depth


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_photos_can_be_given_any_embeddings(depth: int) -> None:
    normalization, model = FeatureNormalization(features()), mapper(depth)
    wanted = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(9))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(300):
        optimizer.zero_grad()
        loss = (model(normalization(features()), PHOTOS) - wanted).square().mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-3


def test_fixed_norm_holds_whatever_the_weights() -> None:
    model = mapper(fixed_norm=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(1))
    norms = model(features(), PHOTOS).norm(dim=-1)
    torch.testing.assert_close(norms, model.starts.norm(dim=-1))
    start = model.starts[0]
    assert (model(features(), PHOTOS)[0] - start).norm() > 0.1 * start.norm()


def test_words_move_at_paces_of_their_own() -> None:
    paces = torch.tensor([[1.0], [1.0], [3.0], [0.0]])
    starts = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(5))
    plain, paced = (
        AttributeMapper(FEATURES, starts, MapperShape(width=16), torch.Generator().manual_seed(0), each)
        for each in (None, paces)
    )
    for model in (plain, paced):
        with torch.no_grad():
            model.layers[-1].weight.normal_(generator=torch.Generator().manual_seed(1))
    moved, moved_at_pace = (model(features(), PHOTOS) - starts for model in (plain, paced))
    torch.testing.assert_close(moved_at_pace, paces * moved)
    assert plain.state_dict().keys() == paced.state_dict().keys()
    assert "paces" not in paced.state_dict()


def test_changes_are_in_units_of_the_words_size() -> None:
    small, large = mapper(scale=1.0), mapper(scale=1000.0)
    for model in (small, large):
        with torch.no_grad():
            model.layers[-1].weight.normal_(generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(1000 * small(features(), PHOTOS), large(features(), PHOTOS))


def test_normalised_features_have_mean_zero_and_deviation_one_over_the_photos() -> None:
    given = features()
    normalised = FeatureNormalization(given)(given)
    torch.testing.assert_close(normalised.mean(dim=0), torch.zeros(FEATURES), atol=1e-4, rtol=0)
    assert normalised.square().mean().sqrt().item() == pytest.approx(1, rel=1e-4)


def test_one_photo_alone_becomes_zeros() -> None:
    given = features(1)
    assert not FeatureNormalization(given)(given).any()


def test_mappers_begin_by_their_generator_alone() -> None:
    torch.manual_seed(1)
    first = mapper(3).state_dict()
    torch.manual_seed(2)
    second = mapper(3).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = mapper(3, seed=1).state_dict()
    assert any(not torch.equal(first[name], other[name]) for name in first)
