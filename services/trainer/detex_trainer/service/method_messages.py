"""Methods and hyperparameters: messages to the domain and back."""

from detex_core.errors import invalid_input
from detex_protos.v1 import common_pb2, trainer_pb2
from detex_trainer.hyperparameters import AttributeStart, DeltaForm, Hyperparameters, Method, PriorPreservation

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
_PRIOR_PRESERVATIONS = {
    trainer_pb2.PRIOR_PRESERVATION_NONE: PriorPreservation.NONE,
    trainer_pb2.PRIOR_PRESERVATION_IMAGES: PriorPreservation.IMAGES,
    trainer_pb2.PRIOR_PRESERVATION_PROMPT: PriorPreservation.PROMPT,
    trainer_pb2.PRIOR_PRESERVATION_KEY_VALUES: PriorPreservation.KEY_VALUES,
}
_PRIOR_PRESERVATION_MESSAGES = {kind: message for message, kind in _PRIOR_PRESERVATIONS.items()}
_ATTRIBUTE_STARTS = {
    trainer_pb2.ATTRIBUTE_START_NOUN: AttributeStart.NOUN,
    trainer_pb2.ATTRIBUTE_START_PLAIN_WORDS: AttributeStart.PLAIN_WORDS,
}
_ATTRIBUTE_START_MESSAGES = {start: message for message, start in _ATTRIBUTE_STARTS.items()}


def read_method(method: int) -> Method:
    """The method of a message; raises InvalidInputError (field `method`) for a number that is none."""
    known = _METHODS.get(common_pb2.Method.ValueType(method))
    if known is None:
        raise invalid_input("method", method, ", ".join(name for name, number in common_pb2.Method.items() if number))
    return known


def method_message(method: str) -> common_pb2.Method.ValueType:
    """The method as callers see it."""
    return _METHOD_MESSAGES[Method(method)]


def read_hyperparameters(message: trainer_pb2.Hyperparameters) -> dict[str, int | float | bool | str]:
    """The knobs that a message sets, by name; raises InvalidInputError where a number stands for no member."""
    knobs: dict[str, int | float | bool | str] = {
        field.name: value for field, value in message.ListFields() if field.enum_type is None
    }
    # ListFields leaves out optional fields only where they are absent, so a knob set to 0 is among them.
    if message.HasField("delta_form"):
        form = _DELTA_FORMS.get(message.delta_form)
        if form is None:
            accepted = "DELTA_FORM_LOW_RANK or DELTA_FORM_FULL"
            raise invalid_input("hyperparameters.delta_form", message.delta_form, accepted)
        knobs["delta_form"] = form.value
    if message.HasField("prior_preservation") and message.prior_preservation:
        kind = _PRIOR_PRESERVATIONS.get(message.prior_preservation)
        if kind is None:
            accepted = ", ".join(trainer_pb2.PriorPreservation.Name(number) for number in _PRIOR_PRESERVATIONS)
            raise invalid_input("hyperparameters.prior_preservation", message.prior_preservation, accepted)
        knobs["prior_preservation"] = kind.value
    if message.HasField("attribute_start") and message.attribute_start:
        start = _ATTRIBUTE_STARTS.get(message.attribute_start)
        if start is None:
            accepted = ", ".join(trainer_pb2.AttributeStart.Name(number) for number in _ATTRIBUTE_STARTS)
            raise invalid_input("hyperparameters.attribute_start", message.attribute_start, accepted)
        knobs["attribute_start"] = start.value
    return knobs


def hyperparameters_message(hyperparameters: Hyperparameters) -> trainer_pb2.Hyperparameters:
    """All knobs as callers see them."""
    knobs = hyperparameters.model_dump(exclude={"delta_form", "prior_preservation", "attribute_start"})
    return trainer_pb2.Hyperparameters(
        **knobs,
        delta_form=_DELTA_FORM_MESSAGES[hyperparameters.delta_form],
        prior_preservation=_PRIOR_PRESERVATION_MESSAGES[hyperparameters.prior_preservation],
        attribute_start=_ATTRIBUTE_START_MESSAGES[hyperparameters.attribute_start],
    )
