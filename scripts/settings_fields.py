"""The fields of a settings class as documents and JSON schemas show them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined


@dataclass(frozen=True)
class Setting:
    """One field of a settings class.

    Attributes:
        field: Name in Python.
        variable: Name in the environment.
        default: Default as people write it.
        description: From the class's docstring.
        schema: JSON schema of the value, with keys in camel case.
    """

    field: str
    variable: str
    default: str
    description: str
    schema: dict[str, Any]

    @property
    def accepted(self) -> str:
        """What the schema accepts, for people."""
        return accepted(self.schema)


def accepted(schema: dict[str, Any]) -> str:
    """A JSON schema for people, for example `integer, 1 to 64`."""
    if "enum" in schema:
        return ", ".join(f"`{value}`" if value != "" else "empty" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(accepted(option) for option in schema["anyOf"] if option.get("type") != "null")
    if "const" in schema:
        return f"`{schema['const']}`" if schema["const"] != "" else "empty"
    low, high = (schema.get(key) for key in ("minimum", "maximum"))
    above = schema.get("exclusiveMinimum")
    kind = str(schema["type"])
    words = {"string": "text", "array": "list", "boolean": "true or false"}.get(kind, kind)
    if above is not None:
        words += f", above {above:,}" + (f", at most {high:,}" if high is not None else "")
    elif low is not None:
        words += f", {low:,} to {high:,}" if high is not None else f", at least {low:,}"
    return words


def camel_case(name: str) -> str:
    """`drain_grace_seconds` as `drainGraceSeconds`."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def attribute_descriptions(settings: type[BaseModel]) -> dict[str, str]:
    """Descriptions of the fields by name, from the `Attributes:` sections of the class and its bases."""
    found: dict[str, str] = {}
    for base in reversed(settings.__mro__):
        _, _, section = (base.__doc__ or "").partition("Attributes:\n")
        for match in re.finditer(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", section, re.MULTILINE):
            found[match[1]] = " ".join(match[2].split())
    return found


def default_text(info: FieldInfo) -> str:
    """The default as people write it into the environment; the home folder as `~`."""
    value = info.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, tuple):
        value = json.dumps([item.model_dump(exclude_defaults=True) for item in value])
    elif isinstance(value, bool):
        value = json.dumps(value)
    return f"`{value}`".replace(str(Path.home()), "~") if value != "" else "empty"


def inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """A JSON schema with its references resolved, in camel case, without titles and defaults."""
    if isinstance(schema, list):
        return [inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return inlined(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    kept = {key: value for key, value in schema.items() if key not in {"title", "default", "description", "properties"}}
    result = {key: inlined(value, definitions) for key, value in kept.items()}
    if "properties" in schema:
        names = {name: camel_case(name) for name in schema["properties"]}
        result["properties"] = {
            names[name]: inlined(value, definitions) for name, value in schema["properties"].items()
        }
        result["required"] = [names[name] for name in schema.get("required", [])]
    return result


def settings_of(settings: type[BaseModel], prefix: str) -> list[Setting]:
    """The fields of a settings class in their order."""
    schema = settings.model_json_schema(by_alias=False)
    descriptions = attribute_descriptions(settings)
    return [
        Setting(
            field=name,
            variable=str(info.validation_alias or f"{prefix}{name.upper()}"),
            default=default_text(info),
            description=descriptions[name],
            schema=inlined(schema["properties"][name], schema.get("$defs", {})),
        )
        for name, info in settings.model_fields.items()
    ]
