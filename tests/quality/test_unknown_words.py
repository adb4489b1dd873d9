from benchmarks.quality.unknown_words import vocabulary_without_the_world
from benchmarks.showroom.captions import POSE_PHRASES, SCENE_PHRASES
from benchmarks.showroom.factors import COLOURS, MATERIALS, PATTERNS, POSES, SCENES
from detex_trainer.domain.attribute_vocabulary import AttributeVocabulary
from detex_trainer.domain.attributes import Region


def test_no_word_of_the_world_is_left_and_most_others_are() -> None:
    left, built_in = vocabulary_without_the_world(), AttributeVocabulary()
    for region in Region:
        assert set(left.of(region)) < set(built_in.of(region))
        assert len(left.of(region)) > len(built_in.of(region)) / 2
    assert set(left.appearance) < set(built_in.appearance)
    assert len(left.appearance) > len(built_in.appearance) / 2
    phrases_left = [*left.appearance, *(phrase for region in Region for phrase in left.of(region))]
    words = {word for phrase in phrases_left for word in phrase.split()}
    for phrases in (POSES, SCENES, COLOURS, PATTERNS, MATERIALS, *POSE_PHRASES.values(), *SCENE_PHRASES.values()):
        for phrase in phrases:
            assert not words & (set(phrase.split()) - {"a", "the", "in", "on", "at", "of", "by", "to", "its", "from"})


def test_the_world_is_in_the_built_in_words() -> None:
    assert set(SCENES) <= set(AttributeVocabulary().background)
    assert {*COLOURS, *PATTERNS, *MATERIALS} <= set(AttributeVocabulary().appearance)
