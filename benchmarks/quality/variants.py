"""What is compared: methods with their hyperparameters.

`detex` is the method with its defaults; `detex:steps=200,mask_floor=0` the same with two of them changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from detex_core.errors import InvalidInputError
from detex_trainer.domain.hyperparameters import Hyperparameters, Method, resolve_hyperparameters, trainable_method

BASE = "base"
"""Label of the base model itself, which draws the plain class word."""


@dataclass(frozen=True)
class Variant:
    """A method with all its hyperparameters.

    Attributes:
        label: As it was asked for.
        method: How concepts are learned.
        hyperparameters: All knobs.
    """

    label: str
    method: Method
    hyperparameters: Hyperparameters


@dataclass(frozen=True)
class Refusal:
    """A variant that cannot be measured, and why."""

    label: str
    reason: str


def parse_variants(text: str, common: Sequence[str] = ()) -> tuple[list[Variant], list[Refusal]]:
    """The variants that a list names, and those that this trainer refuses.

    Args:
        text: Variants with commas between them; a comma that follows a `name=value` and leads to another belongs to
            its variant.
        common: Further `name=value` for all variants.

    Raises:
        ValueError: A label comes twice, or none can be measured.
    """
    variants: list[Variant] = []
    refusals: list[Refusal] = []
    labels = _labels(text)
    if len(set(labels)) < len(labels):
        raise ValueError(f"methods: {text!r} names one of them twice")
    for label in labels:
        name, _, knobs = label.partition(":")
        try:
            method = trainable_method(name)
            settings = [*common, *(knobs.split(",") if knobs else [])]
            variants.append(Variant(label, method, resolve_hyperparameters(method, dict(map(_knob, settings)))))
        except InvalidInputError as error:
            refusals.append(Refusal(label, str(error)))
    if not variants:
        raise ValueError("methods: none can be measured; " + "; ".join(refusal.reason for refusal in refusals))
    return variants, refusals


def _labels(text: str) -> list[str]:
    labels: list[str] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        if "=" in part and ":" not in part and labels and ":" in labels[-1]:
            labels[-1] += f",{part}"
        else:
            labels.append(part)
    return labels


_BOOLEANS = {"true": True, "false": False}


def _knob(setting: str) -> tuple[str, object]:
    name, separator, value = setting.partition("=")
    if not separator:
        raise ValueError(f"methods: must be name=value, got {setting!r}")
    for kind in (int, float):
        try:
            return name.strip(), kind(value)
        except ValueError:
            continue
    return name.strip(), _BOOLEANS.get(value.strip(), value.strip())
