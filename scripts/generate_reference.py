"""Write what follows from the settings classes and the chart's values into the documents that show it.

Run: python scripts/generate_reference.py [--check]   (--check: write nothing, exit 1 where a document is stale)

| from | to |
|---|---|
| settings classes | the tables of docs/operations.md; the settings in values.schema.json and their table in the chart's README.md |
| values.yaml and its comments | the table of values in the chart's README.md |
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from detex_core.settings import BaseModelSettings, ObjectStoreSettings, ServiceSettings
from detex_generator.settings import GeneratorSettings
from detex_trainer.settings import TrainerSettings
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

REPOSITORY = Path(__file__).resolve().parent.parent
CHART = REPOSITORY / "deploy" / "helm" / "detex"
OPERATIONS = REPOSITORY / "docs" / "operations.md"

# Decided by the chart from its other values.
CHART_OWNED = {"listen_address", "metrics_address", "object_store", "work_folder", "log_format", "database_url"}
CHART_OWNED_OF_STORE = {"url", "access_key", "secret_key"}

# Settings per service, the shared ones first.
SERVICES: dict[str, type[ServiceSettings]] = {
    "settings": ServiceSettings,
    "trainerSettings": TrainerSettings,
    "generatorSettings": GeneratorSettings,
}


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
        return " or ".join(accepted(option) for option in schema["anyOf"])
    if "const" in schema:
        return f"`{schema['const']}`" if schema["const"] != "" else "empty"
    low, high = (schema.get(key) for key in ("minimum", "maximum"))
    above = schema.get("exclusiveMinimum")
    words = {"string": "text", "array": "list", "boolean": "true or false"}.get(schema["type"], schema["type"])
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
    """The default as people write it into the environment."""
    if info.default_factory is not None:
        return "see text"
    value = info.default
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, tuple):
        return f"`{json.dumps([item.model_dump(exclude_defaults=True) for item in value])}`"
    return f"`{value}`" if value != "" else "empty"


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
        result["properties"] = {names[name]: inlined(value, definitions) for name, value in schema["properties"].items()}
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


def service_settings(settings: type[ServiceSettings]) -> list[Setting]:
    """The fields of a service's settings but for the object store, which has a table of its own."""
    return [setting for setting in settings_of(settings, "DETEX_") if setting.field != "object_store"]


def own_settings(settings: type[ServiceSettings]) -> list[Setting]:
    """What a service is told beside what every service is told."""
    shared = set(ServiceSettings.model_fields)
    return [setting for setting in service_settings(settings) if setting.field not in shared]


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def variables_table(settings: list[Setting]) -> str:
    """Settings as environment variables."""
    rows = [[f"`{each.variable}`", each.accepted, each.default, each.description] for each in settings]
    return table(["variable", "accepted", "default", "meaning"], rows)


def chart_settings_table() -> str:
    """Settings as the chart's values name them."""
    rows = []
    for path, settings, owned in (
        ("settings", settings_of(ServiceSettings, "DETEX_"), CHART_OWNED),
        ("trainer.settings", own_settings(TrainerSettings), CHART_OWNED),
        ("generator.settings", own_settings(GeneratorSettings), CHART_OWNED),
        ("objectStore.settings", settings_of(ObjectStoreSettings, "DETEX_OBJECT_STORE_"), CHART_OWNED_OF_STORE),
    ):
        rows += [
            [f"`{path}.{camel_case(each.field)}`", each.accepted, each.default, each.description]
            for each in settings
            if each.field not in owned
        ]
    return table(["value", "accepted", "default", "meaning"], rows)


def chart_schema() -> str:
    """values.schema.json with the settings as the classes have them."""
    path = CHART / "values.schema.json"
    schema = json.loads(path.read_text())
    for name, settings in SERVICES.items():
        schema["$defs"][name] = object_schema(settings_of(settings, "DETEX_"), CHART_OWNED)
    store = settings_of(ObjectStoreSettings, "DETEX_OBJECT_STORE_")
    schema["$defs"]["objectStoreSettings"] = object_schema(store, CHART_OWNED_OF_STORE)
    return json.dumps(schema, indent=2) + "\n"


def object_schema(settings: list[Setting], owned: set[str]) -> dict[str, Any]:
    """JSON schema of a mapping of settings."""
    properties = {
        camel_case(each.field): {"description": each.description, **each.schema}
        for each in settings
        if each.field not in owned
    }
    return {"type": "object", "additionalProperties": False, "properties": properties}


def values_table() -> str:
    """The chart's values with their defaults and comments."""
    text = (CHART / "values.yaml").read_text()
    lines = text.splitlines()
    rows = []
    for path, key, node in leaves(yaml.compose(text)):
        default = json.dumps(yaml.safe_load(yaml.serialize(node)))
        rows.append([f"`{path}`", f"`{default}`", comment_above(lines, key.start_mark.line)])
    return table(["value", "default", "meaning"], rows)


def leaves(node: yaml.MappingNode, prefix: str = "") -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """(path, key, value) of what is not a mapping to go into: scalars, lists, empty mappings and resources."""
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        whole = path == "settings" or path.endswith(".resources")
        if isinstance(value, yaml.MappingNode) and value.value and not whole:
            yield from leaves(value, f"{path}.")
        else:
            yield path, key, value


def comment_above(lines: list[str], line: int) -> str:
    """The comment that stands right above a line."""
    found: list[str] = []
    for text in reversed(lines[:line]):
        if not text.lstrip().startswith("# "):
            break
        found.insert(0, text.lstrip()[2:])
    return " ".join(found)


def with_parts(path: Path, parts: dict[str, str]) -> str:
    """A Markdown document with the text between `<!-- NAME -->` and `<!-- end of NAME -->` replaced.

    Raises:
        ValueError: The document lacks the marks of a part.
    """
    text = path.read_text()
    for name, body in parts.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        text, found = pattern.subn(lambda match, body=body: f"{match[1]}\n{body}\n\n{match[2]}", text)
        if found != 1:
            raise ValueError(f"{path}: given {found} parts between <!-- {name} --> and its end; accepted is 1")
    return text


def documents() -> dict[Path, str]:
    """What each document should be now."""
    return {
        CHART / "values.schema.json": chart_schema(),
        CHART / "README.md": with_parts(
            CHART / "README.md", {"table of values": values_table(), "table of settings": chart_settings_table()}
        ),
        OPERATIONS: with_parts(
            OPERATIONS,
            {
                "settings of both services": variables_table(service_settings(ServiceSettings)),
                "settings of the object store": variables_table(settings_of(ObjectStoreSettings, "DETEX_OBJECT_STORE_")),
                "settings of a base model": table(
                    ["key", "accepted", "default", "meaning"],
                    [
                        [f"`{each.field}`", each.accepted, each.default, each.description]
                        for each in settings_of(BaseModelSettings, "")
                    ],
                ),
                "settings of the trainer": variables_table(own_settings(TrainerSettings)),
                "settings of the generator": variables_table(own_settings(GeneratorSettings)),
            },
        ),
    }


def main() -> int:
    """Write the documents, or look whether they are fresh; the exit status."""
    stale = [path for path, text in documents().items() if path.read_text() != text]
    if "--check" in sys.argv[1:]:
        for path in stale:
            print(f"{path.relative_to(REPOSITORY)} is stale; run `make reference`")
        return 1 if stale else 0
    for path, text in documents().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
