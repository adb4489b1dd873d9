"""Rules for keys of configurations: each is honoured, changes nothing, or is refused by file, key and value."""

import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from detex_core.errors import FailedPreconditionError

_SHOWN = 80

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rule:
    """What a key may say.

    Attributes:
        accepts: Whether a value is accepted.
        accepted: What is accepted, human-readable.
        reason: Why nothing else is, or why the key changes nothing here; empty where the value is simply honoured.
    """

    accepts: Callable[[Any], bool]
    accepted: str
    reason: str = ""


Rules = Mapping[str, Rule]


def unsupported(place: str, sentence: str) -> FailedPreconditionError:
    """The error for a folder of a kind that is not supported; `place` is its file."""
    return FailedPreconditionError(f"{place}: {sentence}", reason="BASE_MODEL_UNSUPPORTED")


def check_config(place: str, config: Mapping[str, Any], rules: Rules) -> None:
    """Hold every key of a configuration against its rule.

    A key without a rule is logged where it is switched off (null, false or empty), and refused otherwise, for
    nobody knows what it changes. Keys that begin with an underscore are the libraries' notes on themselves.

    Args:
        place: File, as errors name it.
        config: Its contents.
        rules: By key.

    Raises:
        FailedPreconditionError: A value is not accepted, or an unknown key is switched on.
    """
    for key, value in config.items():
        rule = rules.get(key)
        if rule is not None:
            if not rule.accepts(value):
                why = f" ({rule.reason})" if rule.reason else ""
                raise unsupported(place, f"{key} {shown(value)} is not supported; must be {rule.accepted}{why}.")
        elif key.startswith("_"):
            continue
        elif _is_off(value):
            _logger.warning("%s: unknown key %s is switched off, and left aside", place, shown(key))
        else:
            raise unsupported(
                place,
                f"key {shown(key)} is not known, with value {shown(value)}; it may change what the model computes. "
                "Remove it where it does not.",
            )


def shown(value: object) -> str:
    """A readable value: short, on one line."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def one_of(*values: Any, reason: str = "") -> Rule:
    """Rule of a key that may have these values; null is distinguished from false, and false from 0."""
    names = dict.fromkeys("null" if each is None else json.dumps(each).strip('"') for each in values)
    return Rule(
        lambda value: any(type(value) is type(each) and value == each for each in values), " or ".join(names), reason
    )


def number(least: float, most: float = math.inf, *, above: bool = False, null: bool = False, reason: str = "") -> Rule:
    """Rule of a finite number from `least` (itself excluded where `above`) to `most`; perhaps null."""

    def accepts(value: Any) -> bool:
        if value is None:
            return null
        return is_number(value) and (least < value if above else least <= value) and value <= most

    bounds = f"a number {'above' if above else 'from'} {least:g}" + (f" to {most:g}" if math.isfinite(most) else "")
    return Rule(accepts, bounds + (" or null" if null else ""), reason)


def whole(least: int, most: int | None = None, *, null: bool = False, reason: str = "") -> Rule:
    """Rule of a whole number from `least` to `most`; perhaps null."""

    def accepts(value: Any) -> bool:
        if value is None:
            return null
        return is_whole(value) and least <= value and (most is None or value <= most)

    accepted = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"
    return Rule(accepts, accepted + (" or null" if null else ""), reason)


def switch(reason: str = "") -> Rule:
    """Rule of true or false."""
    return Rule(lambda value: isinstance(value, bool), "true or false", reason)


def list_of(rule: Rule, *, single: bool = False, null: bool = False) -> Rule:
    """Rule of a list, perhaps of lists; perhaps of a single value or null in its place."""

    def accepts(value: Any) -> bool:
        if value is None:
            return null
        if not isinstance(value, list):
            return single and rule.accepts(value)
        return bool(value) and all(
            all(rule.accepts(inner) for inner in each) if isinstance(each, list) else rule.accepts(each)
            for each in value
        )

    accepted = f"a list with each entry {rule.accepted}" + (f", or {rule.accepted}" if single else "")
    return Rule(accepts, accepted + (", or null" if null else ""), rule.reason)


def unread(*keys: str, reason: str) -> dict[str, Rule]:
    """Rules of keys that change nothing here, whatever they say."""
    return {key: Rule(lambda value: True, "anything", reason) for key in keys}


def is_number(value: object) -> bool:
    """Whether a value of JSON is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_whole(value: object) -> bool:
    """Whether a value of JSON is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_off(value: object) -> bool:
    return value is None or value is False or value == "" or value == [] or value == {} or value == [None, None]
