import pytest

from detex_core.errors import InvalidInputError
from detex_trainer.domain.attributes import Region, explained_regions, parse_attributes


def explained(names: str, kept: str) -> set[Region]:
    attributes = parse_attributes(names.split())
    return set(explained_regions(attributes, [a for a in attributes if a.name in kept.split()]))


def test_known_words_have_regions_and_others_are_everywhere() -> None:
    attributes = parse_attributes(["pose", "background", "scene", "lighting", "mood2", "my_thing"])
    assert [attribute.region for attribute in attributes] == [
        Region.SUBJECT,
        Region.BACKGROUND,
        Region.BACKGROUND,
        Region.EVERYWHERE,
        Region.EVERYWHERE,
        Region.EVERYWHERE,
    ]


def test_no_attribute_is_a_list_too() -> None:
    assert parse_attributes([]) == ()
    assert explained("", "") == {Region.SUBJECT}


@pytest.mark.parametrize(
    ("names", "kept", "background"),
    [
        ("pose background", "pose background", True),
        ("pose background", "background", True),
        ("pose background", "pose", False),
        ("pose background", "", False),
        ("background lighting", "lighting", False),
        ("pose lighting", "lighting", True),
        ("pose lighting", "pose", False),
        ("background scene", "scene", True),
    ],
)
def test_surroundings_are_explained_by_background_words_or_in_their_place(
    names: str, kept: str, background: bool
) -> None:
    assert explained(names, kept) == ({Region.SUBJECT, Region.BACKGROUND} if background else {Region.SUBJECT})


@pytest.mark.parametrize(
    ("names", "field"),
    [
        (["pose", "pose"], "attributes[1]"),
        (["Pose"], "attributes[0]"),
        (["pose", ""], "attributes[1]"),
        (["two words"], "attributes[0]"),
        (["a" * 33], "attributes[0]"),
        ([f"word{i}" for i in range(9)], "attributes"),
    ],
)
def test_words_that_no_prompt_could_name_are_refused(names: list[str], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_attributes(names)
    assert caught.value.violations[0].field == field
