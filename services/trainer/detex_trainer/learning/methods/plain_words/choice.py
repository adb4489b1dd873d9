"""Which plain words the words of a concept begin at."""

from collections.abc import Sequence

from detex_diffusion.base_model import BaseModel
from detex_trainer.domain.attribute_vocabulary import AttributeVocabulary
from detex_trainer.domain.attributes import Attribute, Region
from detex_trainer.domain.hyperparameters import AttributeStart, Hyperparameters, SubjectStart
from detex_trainer.learning.methods.plain_words.attribute_start import attribute_start
from detex_trainer.learning.methods.plain_words.errors import ChosenWords, PlainWordErrors
from detex_trainer.learning.methods.plain_words.subject_start import subject_start
from detex_trainer.learning.photos.dataset import PhotoSet


def choose_plain_words(
    base_model: BaseModel,
    class_word: str,
    attributes: Sequence[Attribute],
    photo_set: PhotoSet,
    vocabulary: AttributeVocabulary,
    hyperparameters: Hyperparameters,
) -> ChosenWords:
    """Choose plain words for a concept, each with those that were chosen before in the prompt.

    Background words come first, then those of the subject itself, then the rest: a colour shows best where the place
    is explained, and a pose where the colour is.

    Args:
        base_model: Whose UNet is asked.
        class_word: What the subject is.
        attributes: Of the job.
        photo_set: Its photos; looked at as they are.
        vocabulary: Words to choose from.
        hyperparameters: What begins at plain words, and the seed of the noise.
    """
    errors = PlainWordErrors(base_model, class_word, attributes, photo_set, hyperparameters.seed)
    with_attributes = hyperparameters.attribute_start is AttributeStart.PLAIN_WORDS
    asked = list(attributes) if with_attributes else []
    for attribute in [each for each in asked if each.region is Region.BACKGROUND]:
        start = attribute_start(base_model, errors, attribute, vocabulary.of(attribute.region))
        errors.chosen.attributes[attribute.name] = start
    if hyperparameters.subject_start is SubjectStart.PLAIN_WORDS:
        errors.chosen.subject = subject_start(base_model, errors, class_word, vocabulary.appearance)
    for region in (Region.EVERYWHERE, Region.SUBJECT):
        for attribute in [each for each in asked if each.region is region]:
            start = attribute_start(base_model, errors, attribute, vocabulary.of(region))
            errors.chosen.attributes[attribute.name] = start
    return errors.chosen
