"""Methods and hyperparameters: messages to the domain and back."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from detex_core.errors import invalid_input
from detex_protos.v1 import common_pb2, trainer_pb2
from detex_trainer.domain.base_model_family import BaseModelFamily
from detex_trainer.domain.hyperparameters import (
    AttributeStart,
    DeltaForm,
    Hyperparameters,
    Method,
    PriorPreservation,
    SubjectStart,
    default_hyperparameters,
    trainable_methods,
)

_METHODS = {
    common_pb2.METHOD_UNSPECIFIED: Method.DETEX,
    common_pb2.METHOD_DETEX: Method.DETEX,
    common_pb2.METHOD_TEXTUAL_INVERSION: Method.TEXTUAL_INVERSION,
    common_pb2.METHOD_DREAMBOOTH: Method.DREAMBOOTH,
    common_pb2.METHOD_DREAMBOOTH_LORA: Method.DREAMBOOTH_LORA,
    common_pb2.METHOD_CUSTOM_DIFFUSION: Method.CUSTOM_DIFFUSION,
}
_METHOD_MESSAGES = {method: message for message, method in _METHODS.items() if message}
_DELTA_FORMS = {
    trainer_pb2.DELTA_FORM_UNSPECIFIED: DeltaForm.LOW_RANK,
    trainer_pb2.DELTA_FORM_LOW_RANK: DeltaForm.LOW_RANK,
    trainer_pb2.DELTA_FORM_FULL: DeltaForm.FULL,
}
_DELTA_FORM_MESSAGES = {form: message for message, form in _DELTA_FORMS.items() if message}
_CHOICES: dict[str, tuple[Any, dict[int, StrEnum]]] = {
    "prior_preservation": (
        trainer_pb2.PriorPreservation,
        {
            trainer_pb2.PRIOR_PRESERVATION_NONE: PriorPreservation.NONE,
            trainer_pb2.PRIOR_PRESERVATION_IMAGES: PriorPreservation.IMAGES,
            trainer_pb2.PRIOR_PRESERVATION_PROMPT: PriorPreservation.PROMPT,
            trainer_pb2.PRIOR_PRESERVATION_KEY_VALUES: PriorPreservation.KEY_VALUES,
        },
    ),
    "attribute_start": (
        trainer_pb2.AttributeStart,
        {
            trainer_pb2.ATTRIBUTE_START_NOUN: AttributeStart.NOUN,
            trainer_pb2.ATTRIBUTE_START_PLAIN_WORDS: AttributeStart.PLAIN_WORDS,
        },
    ),
    "subject_start": (
        trainer_pb2.SubjectStart,
        {
            trainer_pb2.SUBJECT_START_CLASS_WORD: SubjectStart.CLASS_WORD,
            trainer_pb2.SUBJECT_START_RARE_WORD: SubjectStart.RARE_WORD,
            trainer_pb2.SUBJECT_START_PLAIN_WORDS: SubjectStart.PLAIN_WORDS,
        },
    ),
}
"""Hyperparameters with enum values, by name: the protobuf enum and the meaning of its numbers. 0 selects the method's
default."""


def read_method(method: int) -> Method:
    """The method of a message; raises InvalidInputError (field `method`) for a number that is none."""
    known = _METHODS.get(common_pb2.Method.ValueType(method))
    if known is None:
        names = ", ".join(name for name, number in common_pb2.Method.items() if number)
        raise invalid_input("method", method, f"one of {names}")
    return known


def method_message(method: str) -> common_pb2.Method.ValueType:
    """The method as callers see it."""
    return _METHOD_MESSAGES[Method(method)]


def method_descriptions(family: BaseModelFamily) -> Sequence[trainer_pb2.MethodDescription]:
    """All methods with their defaults on a family of base models, the default method first."""
    return [
        trainer_pb2.MethodDescription(
            method=method_message(method),
            defaults=hyperparameters_message(default_hyperparameters(method, family)),
        )
        for method in trainable_methods()
    ]


def read_hyperparameters(message: trainer_pb2.Hyperparameters) -> dict[str, int | float | bool | str]:
    """The hyperparameters set in a message, by name; raises InvalidInputError for a number that is no enum value."""
    values: dict[str, int | float | bool | str] = {
        field.name: value for field, value in message.ListFields() if field.enum_type is None
    }
    # ListFields leaves out optional fields only where they are absent, so a value of 0 is included.
    if message.HasField("delta_form"):
        form = _DELTA_FORMS.get(message.delta_form)
        if form is None:
            accepted = "DELTA_FORM_LOW_RANK or DELTA_FORM_FULL"
            raise invalid_input("hyperparameters.delta_form", message.delta_form, accepted)
        values["delta_form"] = form.value
    for field, number in message.ListFields():
        if field.name in _CHOICES and number:
            wire, members = _CHOICES[field.name]
            if number not in members:
                accepted = ", ".join(wire.Name(each) for each in members)
                raise invalid_input(f"hyperparameters.{field.name}", number, f"one of {accepted}")
            values[field.name] = members[number].value
    return values


def hyperparameters_message(hyperparameters: Hyperparameters) -> trainer_pb2.Hyperparameters:
    """All hyperparameters as callers see them."""
    values = hyperparameters.model_dump(exclude={"delta_form", *_CHOICES})
    chosen: dict[str, Any] = {
        name: next(number for number, member in members.items() if member is getattr(hyperparameters, name))
        for name, (_, members) in _CHOICES.items()
    }
    return trainer_pb2.Hyperparameters(**values, **chosen, delta_form=_DELTA_FORM_MESSAGES[hyperparameters.delta_form])
