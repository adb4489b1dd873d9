"""The hyperparameters of a training job: checked, frozen, with the defaults of each method."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from detex_core.errors import InvalidInputError, Violation, invalid_input
from detex_trainer.domain.base_model_family import BaseModelFamily


class Method(StrEnum):
    """How a concept is learned; values as in the manifest of a concept."""

    DETEX = "detex"
    TEXTUAL_INVERSION = "textual_inversion"
    DREAMBOOTH = "dreambooth"
    DREAMBOOTH_LORA = "dreambooth_lora"
    CUSTOM_DIFFUSION = "custom_diffusion"


class DeltaForm(StrEnum):
    """How key and value deltas are written into the artifact; values as in the manifest of a concept."""

    LOW_RANK = "low_rank"
    FULL = "full"


class PriorPreservation(StrEnum):
    """What keeps the base model's idea of the class; values as in the manifest of a concept."""

    NONE = "none"
    IMAGES = "images"
    PROMPT = "prompt"
    KEY_VALUES = "key_values"


class SubjectStart(StrEnum):
    """Where the subject word begins; values as in the manifest of a concept."""

    CLASS_WORD = "class_word"
    RARE_WORD = "rare_word"
    PLAIN_WORDS = "plain_words"


class AttributeStart(StrEnum):
    """Where attribute words begin; values as in the manifest of a concept."""

    NOUN = "noun"
    PLAIN_WORDS = "plain_words"


_LEARNING_RATE = "a number above 0 and at most 1"


class Hyperparameters(BaseModel):
    """All hyperparameters of a job, as in detex.v1.Hyperparameters; the description of a field says what is accepted.

    Attributes:
        steps: Optimisation steps.
        batch_size: Photos per step.
        subject_learning_rate: Learning rate of the subject embedding.
        mapper_learning_rate: Learning rate of the attribute mappers.
        key_value_learning_rate: Learning rate of the key and value projections.
        attention_loss_weight: Weight of the cross-attention loss.
        mask_floor: Weight of what lies outside the mask in the masked denoising loss.
        attribute_keep_probability: Probability that an attribute word stays in the prompt of a step.
        subject_tokens: Word embeddings that stand for the subject; at least, where it begins at plain words, of which
            there may be up to 8.
        seed: Seed of everything random in the job.
        resolution: Side in pixels of the square that photos are brought to; 0 takes the base model's.
        preview_interval_steps: A preview picture every so many steps; 0 means none.
        delta_form: Form of the key and value deltas in the artifact.
        low_rank_energy: Share of the delta's energy that the low-rank form keeps.
        prior_loss_weight: Weight of the prior-preservation loss; 0 switches it off.
        prior_preservation: What that loss looks at: pictures of the class drawn by the base model, its prediction for
            the class word at the same latents, or keys and values of text that has nothing to do with the concept.
        prior_images: Pictures of the class, where they are looked at.
        unet_learning_rate: Learning rate of the UNet's parameters, for methods that train them.
        lora_rank: Rank of the low-rank adaptation, for the method that trains one.
        attribute_start: Whether attribute words begin at the attribute's noun, for every photo alike, or at the plain
            words by which the base model explains each photo best.
        mapper_layers: Linear layers of each attribute mapper.
        mapper_fixed_norm: Whether attribute words keep the norm that they begin with.
        attention_map_side: Side of the attention maps that the cross-attention loss looks at; of the layers, those
            with maps of the nearest size are taken. 0 takes a quarter of the latents' side, at least 8.
        subject_start: Whether the subject word begins at the class word, at a word that means nothing, or at the plain
            words by which the base model explains the subject best in all photos.
        subject_key_value_learning_rate: Learning rate of the vectors that are added to keys and values of the subject's
            tokens in every cross-attention layer, in units of what the layer's projections make of a token; 0 for none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    steps: int = Field(ge=1, le=20_000, description="a whole number from 1 to 20,000")
    batch_size: int = Field(ge=1, le=64, description="a whole number from 1 to 64")
    subject_learning_rate: float = Field(gt=0, le=1, description=_LEARNING_RATE)
    mapper_learning_rate: float = Field(gt=0, le=1, description=_LEARNING_RATE)
    key_value_learning_rate: float = Field(gt=0, le=1, description=_LEARNING_RATE)
    attention_loss_weight: float = Field(ge=0, le=10, description="a number from 0 to 10")
    mask_floor: float = Field(ge=0, le=1, description="a number from 0 to 1")
    attribute_keep_probability: float = Field(ge=0, le=1, description="a number from 0 to 1")
    subject_tokens: int = Field(ge=1, le=8, description="a whole number from 1 to 8")
    seed: int = Field(ge=0, lt=2**32, description="a whole number from 0 to 2^32 - 1")
    resolution: int = Field(
        ge=0, le=2048, description="0 for the base model's own, or a multiple of 8 from 32 to 2,048"
    )
    preview_interval_steps: int = Field(ge=0, le=20_000, description="a whole number from 0 to 20,000, 0 for none")
    delta_form: DeltaForm = Field(strict=False, description="low_rank or full")
    low_rank_energy: float = Field(gt=0, le=1, description="a number above 0 and at most 1")
    prior_loss_weight: float = Field(ge=0, le=10, description="a number from 0 to 10")
    # Jobs that were queued before these hyperparameters existed do not have them.
    prior_preservation: PriorPreservation = Field(
        default=PriorPreservation.KEY_VALUES, strict=False, description="none, images, prompt or key_values"
    )
    prior_images: int = Field(default=64, ge=1, le=1000, description="a whole number from 1 to 1,000")
    unet_learning_rate: float = Field(default=1e-4, gt=0, le=1, description=_LEARNING_RATE)
    lora_rank: int = Field(default=4, ge=1, le=256, description="a whole number from 1 to 256")
    attribute_start: AttributeStart = Field(
        default=AttributeStart.NOUN, strict=False, description="noun or plain_words"
    )
    mapper_layers: int = Field(default=2, ge=1, le=8, description="a whole number from 1 to 8")
    mapper_fixed_norm: bool = Field(default=False, description="true or false")
    attention_map_side: int = Field(
        default=0, ge=0, le=256, description="a whole number from 0 to 256, 0 for the trainer's choice"
    )
    subject_start: SubjectStart = Field(
        default=SubjectStart.CLASS_WORD, strict=False, description="class_word, rare_word or plain_words"
    )
    subject_key_value_learning_rate: float = Field(
        default=0.0, ge=0, le=1, description="a number from 0 to 1, 0 for no such vectors"
    )

    @field_validator("resolution")
    @classmethod
    def _resolution_is_none_or_a_multiple_of_8(cls, resolution: int) -> int:
        if resolution and (resolution % 8 or resolution < 32):
            raise ValueError("not a multiple of 8 from 32 on")
        return resolution


_EMBEDDED_DETEX = Hyperparameters(
    steps=400,
    batch_size=4,
    subject_learning_rate=5e-3,
    mapper_learning_rate=3e-4,
    key_value_learning_rate=1e-5,
    attention_loss_weight=0.01,
    mask_floor=0.02,
    attribute_keep_probability=0.85,
    subject_tokens=1,
    seed=0,
    resolution=0,
    preview_interval_steps=0,
    delta_form=DeltaForm.LOW_RANK,
    low_rank_energy=0.99,
    prior_loss_weight=0.0,
    attribute_start=AttributeStart.PLAIN_WORDS,
    subject_start=SubjectStart.PLAIN_WORDS,
    subject_key_value_learning_rate=0.04,
)

_PEER = {
    "attention_loss_weight": 0.0,
    "mask_floor": 1.0,
    "subject_start": SubjectStart.RARE_WORD,
    "subject_key_value_learning_rate": 0.0,
}
_WITH_PRIOR_IMAGES = _PEER | {"prior_preservation": PriorPreservation.IMAGES, "prior_loss_weight": 1.0}

_EMBEDDED: dict[Method, Hyperparameters] = {
    Method.DETEX: _EMBEDDED_DETEX,
    Method.TEXTUAL_INVERSION: _EMBEDDED_DETEX.model_copy(
        update=_PEER
        | {
            "prior_preservation": PriorPreservation.NONE,
            "subject_start": SubjectStart.CLASS_WORD,
            "subject_learning_rate": 2e-2,
            "subject_tokens": 2,
            "steps": 800,
        }
    ),
    Method.DREAMBOOTH: _EMBEDDED_DETEX.model_copy(
        update=_WITH_PRIOR_IMAGES | {"unet_learning_rate": 3e-4, "prior_loss_weight": 0.3}
    ),
    Method.DREAMBOOTH_LORA: _EMBEDDED_DETEX.model_copy(
        update=_WITH_PRIOR_IMAGES | {"unet_learning_rate": 1e-3, "prior_preservation": PriorPreservation.PROMPT}
    ),
    Method.CUSTOM_DIFFUSION: _EMBEDDED_DETEX.model_copy(
        update=_WITH_PRIOR_IMAGES | {"key_value_learning_rate": 1e-4, "subject_learning_rate": 2e-2}
    ),
}

"""As tuned on the rendered world (docs/experiments.md)."""

_STABLE_DIFFUSION_DETEX = _EMBEDDED_DETEX.model_copy(
    update={
        "steps": 500,
        "subject_learning_rate": 2e-3,
        "mapper_learning_rate": 1e-3,
        "key_value_learning_rate": 4e-5,
        "subject_key_value_learning_rate": 0.0,
    }
)
_STABLE_DIFFUSION: dict[Method, Hyperparameters] = {
    Method.DETEX: _STABLE_DIFFUSION_DETEX,
    Method.TEXTUAL_INVERSION: _EMBEDDED[Method.TEXTUAL_INVERSION].model_copy(
        update={"steps": 3000, "batch_size": 4, "subject_learning_rate": 2e-3, "subject_tokens": 1}
    ),
    Method.DREAMBOOTH: _EMBEDDED[Method.DREAMBOOTH].model_copy(
        update={
            "steps": 800,
            "batch_size": 1,
            "unet_learning_rate": 5e-6,
            "prior_loss_weight": 1.0,
            "prior_images": 200,
        }
    ),
    Method.DREAMBOOTH_LORA: _EMBEDDED[Method.DREAMBOOTH_LORA].model_copy(
        update={
            "steps": 500,
            "batch_size": 1,
            "unet_learning_rate": 1e-4,
            "lora_rank": 4,
            "prior_preservation": PriorPreservation.NONE,
            "prior_loss_weight": 0.0,
        }
    ),
    Method.CUSTOM_DIFFUSION: _EMBEDDED[Method.CUSTOM_DIFFUSION].model_copy(
        update={
            "steps": 250,
            "batch_size": 2,
            "subject_learning_rate": 4e-5,
            "key_value_learning_rate": 4e-5,
            "prior_loss_weight": 1.0,
            "prior_images": 200,
        }
    ),
}
"""From published recipes, each cited in docs/method.md."""

_STABLE_DIFFUSION_XL = _STABLE_DIFFUSION | {
    Method.TEXTUAL_INVERSION: _STABLE_DIFFUSION[Method.TEXTUAL_INVERSION].model_copy(update={"steps": 500}),
    Method.DREAMBOOTH_LORA: _STABLE_DIFFUSION[Method.DREAMBOOTH_LORA].model_copy(update={"batch_size": 4}),
}

_DEFAULTS: dict[BaseModelFamily, dict[Method, Hyperparameters]] = {
    BaseModelFamily.EMBEDDED: _EMBEDDED,
    BaseModelFamily.STABLE_DIFFUSION: _STABLE_DIFFUSION,
    BaseModelFamily.STABLE_DIFFUSION_XL: _STABLE_DIFFUSION_XL,
}

_PRIORS_OF_THE_UNET = (PriorPreservation.NONE, PriorPreservation.IMAGES, PriorPreservation.PROMPT)
_ACCEPTED: dict[Method, dict[str, tuple[StrEnum, ...]]] = {
    # A word embedding alone leaves the base model as it is: there is nothing to preserve.
    Method.TEXTUAL_INVERSION: {"prior_preservation": (PriorPreservation.NONE,)},
    # The subject word is not trained, and must mean nothing yet.
    Method.DREAMBOOTH: {"prior_preservation": _PRIORS_OF_THE_UNET, "subject_start": (SubjectStart.RARE_WORD,)},
    Method.DREAMBOOTH_LORA: {"prior_preservation": _PRIORS_OF_THE_UNET, "subject_start": (SubjectStart.RARE_WORD,)},
}
"""What a method accepts of a hyperparameter, where that is less than all."""


def trainable_methods() -> tuple[Method, ...]:
    """The methods that this trainer trains."""
    return tuple(_EMBEDDED)


def trainable_method(name: str) -> Method:
    """The method of that name.

    Raises:
        InvalidInputError: There is no such method, or this trainer does not train it; field `method`.
    """
    for method in _EMBEDDED:
        if method == name:
            return method
    raise invalid_input("method", name, f"one of {', '.join(_EMBEDDED)}")


def default_hyperparameters(method: str, family: BaseModelFamily = BaseModelFamily.EMBEDDED) -> Hyperparameters:
    """The defaults of a method on a family of base models (docs/method.md).

    Raises:
        InvalidInputError: This trainer does not train that method; field `method`.
    """
    return _DEFAULTS[family][trainable_method(method)]


def resolve_hyperparameters(
    method: str, overrides: Mapping[str, object], family: BaseModelFamily = BaseModelFamily.EMBEDDED
) -> Hyperparameters:
    """The defaults of a method with some hyperparameters set.

    Args:
        method: A method that this trainer trains.
        overrides: Knobs by name; whole numbers serve as floats too.
        family: Of the base model that is trained on.

    Raises:
        InvalidInputError: The method is none (field `method`), or a hyperparameter is unknown or out of its range (one
            violation each, field `hyperparameters.<name>`).
    """
    values: dict[str, Any] = default_hyperparameters(method, family).model_dump()
    try:
        resolved = Hyperparameters.model_validate(values | dict(overrides))
    except ValidationError as error:
        raise InvalidInputError(*(_violation(str(item["loc"][0]), item["input"]) for item in error.errors())) from error
    for name, accepted in _ACCEPTED.get(Method(method), {}).items():
        given = getattr(resolved, name)
        if given not in accepted:
            raise invalid_input(f"hyperparameters.{name}", given, f"{' or '.join(accepted)} for the method {method}")
    if resolved.subject_key_value_learning_rate and method in (Method.DREAMBOOTH, Method.DREAMBOOTH_LORA):
        # A rare word stands for the subject there, which the UNet learns; it has no tokens of its own to add to.
        raise invalid_input(
            "hyperparameters.subject_key_value_learning_rate",
            resolved.subject_key_value_learning_rate,
            f"0 for the method {method}",
        )
    return resolved


def _violation(name: str, given: object) -> Violation:
    known = Hyperparameters.model_fields
    accepted = known[name].description if name in known else f"one of {', '.join(known)}"
    return Violation(f"hyperparameters.{name}", str(given)[:80], accepted or "")
