"""Hyperparameters of a training job as keyword arguments."""

from typing import Any, TypedDict, cast

from detex_client.errors import refused
from detex_client.wire_enum import AttributeStart, DeltaForm, PriorPreservation, SubjectStart, WireEnum
from detex_protos.v1 import trainer_pb2


class Hyperparameters(TypedDict, total=False):
    """Values by name, with units and ranges as in `detex.v1.Hyperparameters`; missing ones take their defaults."""

    steps: int
    batch_size: int
    subject_learning_rate: float
    mapper_learning_rate: float
    key_value_learning_rate: float
    attention_loss_weight: float
    mask_floor: float
    attribute_keep_probability: float
    subject_tokens: int
    seed: int
    resolution: int
    preview_interval_steps: int
    delta_form: DeltaForm
    low_rank_energy: float
    prior_loss_weight: float
    prior_preservation: PriorPreservation
    prior_images: int
    unet_learning_rate: float
    lora_rank: int
    attribute_start: AttributeStart
    mapper_layers: int
    mapper_fixed_norm: bool
    attention_map_side: int
    subject_start: SubjectStart
    subject_key_value_learning_rate: float


_ENUMERATIONS: dict[str, type[WireEnum]] = {
    "attribute_start": AttributeStart,
    "delta_form": DeltaForm,
    "prior_preservation": PriorPreservation,
    "subject_start": SubjectStart,
}


_BOOLEANS = {"true": True, "false": False}


def to_wire(hyperparameters: Hyperparameters) -> trainer_pb2.Hyperparameters:
    """The protobuf message.

    Raises:
        DetexClientError: INVALID_ARGUMENT for an unknown name, or a value that the field cannot hold.
    """
    message = trainer_pb2.Hyperparameters()
    for name, value in cast("dict[str, Any]", hyperparameters).items():
        if name not in message.DESCRIPTOR.fields_by_name:
            names = ", ".join(field.name for field in message.DESCRIPTOR.fields)
            raise refused("hyperparameters", name, f"one of {names}")
        try:
            enumeration = _ENUMERATIONS.get(name)
            setattr(message, name, value if enumeration is None else enumeration(value).number())
        except (TypeError, ValueError):
            raise refused(f"hyperparameters.{name}", repr(value), _accepted(name)) from None
    return message


def from_wire(message: trainer_pb2.Hyperparameters) -> Hyperparameters:
    """The hyperparameters that are set in the message."""
    values: dict[str, Any] = {field.name: value for field, value in message.ListFields()}
    for name in _ENUMERATIONS.keys() & values.keys():
        values[name] = _ENUMERATIONS[name].from_number(values[name])
    return cast("Hyperparameters", values)


def parse(name: str, text: str) -> Hyperparameters:
    """One hyperparameter from text, as on a command line.

    Raises:
        DetexClientError: INVALID_ARGUMENT for an unknown name or text that is not a valid value.
    """
    kind = Hyperparameters.__annotations__.get(name, str)
    value: object = text
    if kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            raise refused(f"hyperparameters.{name}", text, _accepted(name)) from None
    if kind is bool:
        if text not in _BOOLEANS:
            raise refused(f"hyperparameters.{name}", text, _accepted(name))
        value = _BOOLEANS[text]
    parsed = cast("Hyperparameters", {name: value})
    to_wire(parsed)
    return parsed


def _accepted(name: str) -> str:
    kind = Hyperparameters.__annotations__[name]
    if name in _ENUMERATIONS:
        return " or ".join(_ENUMERATIONS[name])
    if kind is bool:
        return "true or false"
    return "a number" if kind is float else "a non-negative whole number"
