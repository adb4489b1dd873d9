"""Whether a base model's text encoder reads all that a training says of its photos; told before it begins.

Needs the tokenizer alone, and no torch. How prompts become tokens is told in `detex_diffusion.text.tokenize`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from detex_core.errors import InvalidInputError, Violation, invalid_input
from detex_core.prompt import Prompt, SubjectWord, Text, parse_prompt
from detex_trainer.domain.attributes import Attribute, parse_attributes
from detex_trainer.domain.hyperparameters import Hyperparameters, Method, PriorPreservation, SubjectStart
from detex_trainer.domain.photo_place import photo_place
from detex_trainer.domain.prompts import (
    PREFIXES,
    RARE_WORD,
    REGULARISATION_PROMPTS,
    VIEWS,
    training_prompt,
    view_prefix,
)
from detex_trainer.domain.training_set_record import TrainingSetRecord
from detex_trainer.intake.upload import Upload

_CONCEPT = "subject"
_MOST_DESCRIBING_TOKENS = 8
_SAMPLES = ("a photo of a [subject] on a beach", "a photo of a [subject] on a wooden table")


@dataclass(frozen=True)
class TextReader:
    """How a base model reads text.

    Attributes:
        base_model: Its name.
        tokens: The ids of the tokens of plain text, without start and end.
        limit: Tokens of a prompt that it reads, without start and end.
    """

    base_model: str
    tokens: Callable[[str], Sequence[int]]
    limit: int


@dataclass(frozen=True)
class PhotoCaption:
    """What is said of a photo.

    Attributes:
        text: The caption; may be empty.
        field: Its name in errors.
        place: How errors name the photo.
    """

    text: str
    field: str
    place: str


def captions_of(record: TrainingSetRecord) -> tuple[PhotoCaption, ...]:
    """The captions of a training set that is stored, as `photos[<photo index>].caption`."""
    return tuple(
        PhotoCaption(
            photo.caption, f"photos[{photo.photo_index}].caption", photo_place(photo.photo_index, photo.file_name)
        )
        for photo in record.photos
    )


def prompt_length(prompt: Prompt, tokens: Callable[[str], Sequence[int]], class_word: str, subject_tokens: int) -> int:
    """Tokens of a prompt of one concept, without start and end: those of `detex_diffusion.text.tokenize`.

    Args:
        prompt: In the prompt language.
        tokens: As of `TextReader`.
        class_word: Of its concept.
        subject_tokens: Tokens that stand for the subject.
    """
    length = 0
    noun: list[int] = []  # owed after the last word, unless the text says it
    for part in prompt.parts:
        if isinstance(part, Text):
            said = list(tokens(part.text))
            length += len(said) if said[: len(noun)] == noun else len(noun) + len(said)
            noun = []
            continue
        length += len(noun)
        if isinstance(part, SubjectWord):
            length += subject_tokens
            noun = list(tokens(class_word))
        else:
            length += 1
            noun = list(tokens(part.attribute.replace("_", " ").replace("-", " ")))
    return length + len(noun)


def check_upload_texts(reader: TextReader, upload: Upload) -> None:
    """Whether a base model can read what an upload says, whatever will be learned from it and how.

    Raises:
        InvalidInputError: The class word or captions are too long; one violation each, of the fields
            `header.class_word` and `files[<position>].caption`.
    """
    captions = [
        PhotoCaption(
            file.header.caption,
            f"{file.field}.caption",
            photo_place(file.header.photo_index, file.header.file_name),
        )
        for file in upload.photos
    ]
    _check(_Course(reader, upload.class_word, (), 1, PREFIXES), captions, "header.class_word")


def check_job_texts(
    reader: TextReader,
    class_word: str,
    captions: Sequence[PhotoCaption],
    method: Method,
    hyperparameters: Hyperparameters,
    attributes: Sequence[str],
) -> None:
    """Whether a base model can read all prompts that a job may ask of it.

    Raises:
        InvalidInputError: The class word (field `class_word`), the attribute words (field `attributes`) or captions are
            too long for it.
    """
    prefixes = list(PREFIXES)
    if method is Method.CUSTOM_DIFFUSION:
        prefixes += [view_prefix(view) for views in VIEWS.values() for view in views if view]
    subject_tokens = _subject_tokens(reader, method, hyperparameters)
    course = _Course(reader, class_word, parse_attributes(attributes), subject_tokens, prefixes)
    _check(course, captions, "class_word")
    is_regularised = hyperparameters.prior_preservation is PriorPreservation.KEY_VALUES
    if is_regularised and hyperparameters.prior_loss_weight > 0:
        plain = max(len(reader.tokens(text.format(class_word=class_word))) for text in REGULARISATION_PROMPTS)
        if plain > reader.limit:
            raise course.class_word_error(plain, "class_word")


def _subject_tokens(reader: TextReader, method: Method, hyperparameters: Hyperparameters) -> int:
    """Tokens that stand for the subject, at most: how many words describe it is not known before."""
    if method in (Method.DREAMBOOTH, Method.DREAMBOOTH_LORA):
        return len(reader.tokens(RARE_WORD))
    if hyperparameters.subject_start is SubjectStart.PLAIN_WORDS:
        return max(_MOST_DESCRIBING_TOKENS, hyperparameters.subject_tokens)
    return hyperparameters.subject_tokens


@dataclass(frozen=True)
class _Course:
    """What a training says.

    Attributes:
        reader: Who reads it.
        class_word: What the subject is.
        attributes: With words of their own.
        subject_tokens: Tokens that stand for the subject.
        prefixes: What may lead to it.
    """

    reader: TextReader
    class_word: str
    attributes: Sequence[Attribute]
    subject_tokens: int
    prefixes: Sequence[str]

    def longest(self, attributes: Sequence[Attribute]) -> int:
        """Tokens of the longest prompt without a caption."""
        prompts = [
            *(training_prompt(_CONCEPT, 0, attributes, prefix=prefix) for prefix in self.prefixes),
            *(parse_prompt(sample) for sample in _SAMPLES),
        ]
        return max(self._length(prompt) for prompt in prompts)

    def captioned(self, caption: str) -> int:
        """Tokens of the prompt with a caption."""
        return self._length(training_prompt(_CONCEPT, 0, self.attributes, caption=caption, class_word=self.class_word))

    def class_word_error(self, longest: int, field: str) -> InvalidInputError:
        """The error for a class word with which a prompt takes so many tokens."""
        reader = self.reader
        given = len(reader.tokens(self.class_word))
        return invalid_input(
            field,
            f"{self.class_word[:24]!r} of {given} tokens",
            f"a class word of at most {max(1, given - (longest - reader.limit))} tokens",
            note=f"the base model {reader.base_model} reads {reader.limit} tokens of a prompt",
        )

    @property
    def attribute_count(self) -> str:
        """The attribute words that share the prompt, in words."""
        return f" and {len(self.attributes)} attribute words" if self.attributes else ""

    def _length(self, prompt: Prompt) -> int:
        return prompt_length(prompt, self.reader.tokens, self.class_word, self.subject_tokens)


def _check(course: _Course, captions: Sequence[PhotoCaption], field: str) -> None:
    limit, attributes = course.reader.limit, course.attributes
    alone = course.longest(())
    if alone > limit:
        raise course.class_word_error(alone, field)
    together = course.longest(attributes)
    if together > limit:
        raise invalid_input(
            "attributes",
            f"{together - alone} tokens ({len(attributes)} words and what leads to them)",
            f"at most {limit - alone} tokens beside the class word",
            note=f"the base model {course.reader.base_model} reads {limit} tokens of a prompt",
        )
    violations = []
    for caption in captions:
        excess = course.captioned(caption.text) - limit if caption.text else 0
        if excess > 0:
            given = len(course.reader.tokens(caption.text))
            accepted = f"at most {max(0, given - excess)} tokens beside the class word{course.attribute_count}"
            note = f"the base model {course.reader.base_model} reads {limit} tokens of a prompt"
            violations.append(Violation(caption.field, str(given), accepted, caption.place, note))
    if violations:
        raise InvalidInputError(*violations)
