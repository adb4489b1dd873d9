"""What no words say of a subject: badges, profiles, colours between the named ones."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.showroom.badge import badge_sheet, badge_texture
from benchmarks.showroom.captions import sample_caption
from benchmarks.showroom.colours import delta_e, lab, nearest_name
from benchmarks.showroom.factors import CLASSES, COLOURS
from benchmarks.showroom.products import build_product
from benchmarks.showroom.products.profile import with_profile
from benchmarks.showroom.renderer import PhotoLabels, product_parts, render_photo
from benchmarks.showroom.subject import BADGE_SIDE, Subject, sample_subject, sibling, split_of
from benchmarks.showroom.view import sample_view

pytestmark = pytest.mark.slow

identity_subject = partial(sample_subject, world="identity")
seeds = st.integers(min_value=0, max_value=2**53 - 1)
SIZE = 64


def words_of(subject: Subject) -> tuple[str | bool, ...]:
    names = (subject.class_word, subject.main_colour, subject.accent_colour, subject.pattern, subject.material)
    return *names, bool(subject.badge)


@settings(deadline=None)
@given(seed=seeds)
def test_both_worlds_say_the_same_words_of_a_seed(seed: int) -> None:
    former, subject = sample_subject(seed, world="words"), identity_subject(seed, badges="never")
    assert words_of(former) == words_of(subject)
    assert former.shape == subject.shape
    assert (former.profile, former.badge, former.badge_rgb) == ((), (), None)
    assert len(subject.profile) == 4


@settings(deadline=None)
@given(seed=seeds)
def test_badges_can_be_asked_for_and_decide_nothing_else(seed: int) -> None:
    never, some, always = (identity_subject(seed, badges=badges) for badges in ("never", "some", "always"))
    assert not never.badge
    assert len(always.badge) == BADGE_SIDE**2
    assert 3 <= sum(always.badge) <= 6
    assert some in (never, always)
    without = {"badge": (), "badge_rgb": None}
    assert always.model_copy(update=without) == never


@settings(deadline=None)
@given(seed=seeds)
def test_colours_lie_between_names_and_keep_their_own(seed: int) -> None:
    subject = identity_subject(seed)
    assert nearest_name(subject.accent_rgb) == subject.accent_colour
    assert nearest_name(subject.main_rgb) == subject.main_colour


def test_colours_are_freer_than_in_the_former_world() -> None:
    spread = {
        world: np.mean(
            [
                delta_e(subject.main_rgb, COLOURS[subject.main_colour])
                for subject in (sample_subject(seed, world=world) for seed in range(300))
            ]
        )
        for world in ("words", "identity")
    }
    assert spread["identity"] > 1.5 * spread["words"]


def test_lab_is_that_of_known_colours() -> None:
    # Linear RGB 1, 1, 1 is the white of D65; sRGB red, from the standard's tables.
    np.testing.assert_allclose(lab((1.0, 1.0, 1.0)), [100, 0, 0], atol=1e-6)
    np.testing.assert_allclose(lab((1.0, 0.0, 0.0)), [53.24, 80.09, 67.20], atol=0.02)
    assert delta_e((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)) == pytest.approx(100)


@settings(deadline=None)
@given(seed=seeds, number=st.integers(min_value=0, max_value=50))
def test_siblings_share_their_words_and_nothing_else(seed: int, number: int) -> None:
    subject = identity_subject(seed)
    other = sibling(subject, number)
    assert other == sibling(subject, number)
    assert words_of(other) == words_of(subject)
    assert split_of(other.seed) == split_of(subject.seed)
    assert other.shape != subject.shape
    assert other.profile != subject.profile
    assert other.main_rgb != subject.main_rgb


def test_siblings_have_badges_of_their_own() -> None:
    subject = identity_subject(5, badges="always")
    assert len({sibling(subject, number).badge for number in range(20)}) > 10


def test_old_labels_stay_readable() -> None:
    labels = PhotoLabels(split="test", subject=sample_subject(30, world="words"), view=sample_view(2))
    document = labels.model_dump()
    for name in ("profile", "badge", "badge_rgb"):
        del document["subject"][name]
    assert PhotoLabels.model_validate(document) == labels


@pytest.mark.parametrize("class_word", CLASSES)
def test_a_badge_is_seen_from_the_front_and_belongs_to_the_product(class_word: str) -> None:
    view = sample_view(3, "upright", "studio").model_copy(update={"turn": 0.0})
    subject = identity_subject(21, class_word, badges="always").model_copy(update={"material": "matte"})
    red, blue = (
        subject.model_copy(update={"badge_rgb": (colour, colour)}) for colour in ((0.8, 0.02, 0.02), (0.02, 0.02, 0.8))
    )
    photos = [render_photo(each, view, SIZE) for each in (red, blue)]
    np.testing.assert_array_equal(photos[0].mask, photos[1].mask)
    differs = np.abs(photos[0].image.astype(int) - photos[1].image).max(-1) > 25
    assert differs.sum() >= 40  # cells of two pixels and more
    assert not np.any(differs & (photos[0].mask == 0))


def test_the_cells_of_a_badge_are_its_bits() -> None:
    subject = identity_subject(8, badges="always")
    texture = badge_texture(subject)[::-1]  # from the upper left
    light, dark = subject.badge_rgb
    for row in range(3):
        for column in range(3):
            colour = texture[8 + 16 * row + 8, 8 + 16 * column + 8]
            np.testing.assert_allclose(colour, dark if subject.badge[3 * row + column] else light, rtol=1e-6)
    with pytest.raises(ValueError, match=r"^badge: "):
        badge_texture(identity_subject(8, badges="never"))


def test_captions_name_a_badge_and_none_where_there_is_none() -> None:
    rng = np.random.default_rng(0)

    def captions(badges: str) -> list[str]:
        subject = identity_subject(12, badges=badges)
        labels = PhotoLabels(split="test", subject=subject, view=sample_view(1, "lying", "beach"))
        return [sample_caption(labels, rng, 0.0) for _ in range(400)]

    named = sum("badge" in caption for caption in captions("always"))
    assert 180 < named < 300
    assert not any("badge" in caption for caption in captions("never"))
    word = identity_subject(12).class_word
    assert f"a photo of a {word} with a badge with lying pose in beach background" in captions("always") + [
        caption for _ in range(20) for caption in captions("always")
    ]


@pytest.mark.parametrize("class_word", CLASSES)
def test_a_profile_changes_the_outline_and_the_middle_of_it_nothing(class_word: str) -> None:
    parts = build_product(class_word, [0.5] * 6)
    plain, narrow, wide = (with_profile(parts, [value] * 4) for value in (0.5, 0.0, 1.0))
    assert with_profile(parts, ()) == parts

    def extent(product: list) -> np.ndarray:
        return np.ptp(np.concatenate([part.vertices for part in product]), axis=0)

    np.testing.assert_allclose(extent(plain), extent(parts), atol=1e-9)
    np.testing.assert_allclose(extent(plain)[2], extent(wide)[2], atol=1e-9)
    for one, other in zip(wide, narrow, strict=True):
        assert one.slot is other.slot
    moved = [np.abs(one.vertices - other.vertices).max() for one, other in zip(wide, narrow, strict=True)]
    assert max(moved) > 0.1


@pytest.mark.parametrize("profile", [[0.5] * 3, [0.5, 0.5, 0.5, 1.1]])
def test_bad_profiles_are_named(profile: list[float]) -> None:
    with pytest.raises(ValueError, match=r"^profile: got"):
        with_profile(build_product("mug", [0.5] * 6), profile)


def test_every_subject_has_a_place_for_its_badge() -> None:
    for seed in range(300):
        subject = identity_subject(seed, badges="always")
        sheet = badge_sheet(product_parts(subject))
        assert np.isfinite(sheet.vertices).all()
        assert np.ptp(sheet.vertices[:, 2]) > 0
