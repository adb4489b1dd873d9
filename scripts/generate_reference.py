"""Write what follows from the settings classes and the chart's values into the documents that show it.

Run: python -m scripts.generate_reference [--check]   (--check: write nothing, exit 1 where a document is stale)

| from | to |
|---|---|
| settings classes and registries of metrics | the tables of docs/operations.md |
| Studio's settings class | the table of docs/studio.md |
| settings classes | the settings in the chart's values.schema.json, and their table in the chart's README.md |
| values.yaml and its comments | the table of values in the chart's README.md |
"""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from detex_core.settings import BaseModelSettings, ObjectStoreSettings, ServiceSettings
from detex_generator.settings import GeneratorSettings
from detex_studio.settings import StudioSettings
from detex_trainer.settings import TrainerSettings
from scripts.metrics_reference import HEADS, generator_metrics, shared_metrics, trainer_metrics
from scripts.settings_fields import Setting, camel_case, settings_of

REPOSITORY = Path(__file__).resolve().parent.parent
CHART = REPOSITORY / "deploy" / "helm" / "detex"
STUDIO = REPOSITORY / "docs" / "studio.md"
OPERATIONS = REPOSITORY / "docs" / "operations.md"

# Decided by the chart from its other values.
CHART_OWNED = {"listen_address", "metrics_address", "object_store", "work_folder", "log_format", "database_url"}
CHART_OWNED |= {"executor", "kubernetes", "compile_cache_folder"}
CHART_OWNED |= {"access_policy_file", "insecure", "tls_certificate_file", "tls_key_file", "tls_client_authority_file"}
CHART_OWNED_OF_STUDIO = {"listen_address", "allowed_hosts", "data_folder", "trainer_address", "generator_address"}
CHART_OWNED_OF_STUDIO |= {"tenant", "tls", "root_certificates"}
CHART_OWNED_OF_STORE = {"url", "access_key", "secret_key"}

# Settings per service, the shared ones first.
SERVICES: dict[str, type[ServiceSettings]] = {
    "settings": ServiceSettings,
    "trainerSettings": TrainerSettings,
    "generatorSettings": GeneratorSettings,
}


def service_settings(settings: type[ServiceSettings]) -> list[Setting]:
    """The fields of a service's settings but for the object store, which has a table of its own."""
    return [setting for setting in settings_of(settings, "DETEX_") if setting.field != "object_store"]


def object_store_settings() -> list[Setting]:
    """The fields of the object store's settings."""
    return settings_of(ObjectStoreSettings, "DETEX_OBJECT_STORE_")


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
        ("studio.settings", settings_of(StudioSettings, "DETEX_STUDIO_"), CHART_OWNED_OF_STUDIO),
        ("objectStore.settings", object_store_settings(), CHART_OWNED_OF_STORE),
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
    studio = settings_of(StudioSettings, "DETEX_STUDIO_")
    schema["$defs"]["studioSettings"] = object_schema(studio, CHART_OWNED_OF_STUDIO)
    store = object_store_settings()
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


def leaves(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """(path, key, value) of what is not a mapping to go into: scalars, lists, empty mappings and resources."""
    if not isinstance(node, yaml.MappingNode):
        raise TypeError(f"values.yaml: must be a mapping at {prefix or 'the top'}, got {node}")
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
        match = pattern.search(text)
        if match is None:
            raise ValueError(f"{path}: must have one section between <!-- {name} --> and <!-- end of {name} -->")
        text = f"{text[: match.start()]}{match[1]}\n{body}\n\n{match[2]}{text[match.end() :]}"
    return text


def documents() -> dict[Path, str]:
    """What each document should be now."""
    return {
        CHART / "values.schema.json": chart_schema(),
        CHART / "README.md": with_parts(
            CHART / "README.md", {"table of values": values_table(), "table of settings": chart_settings_table()}
        ),
        STUDIO: with_parts(STUDIO, {"settings": variables_table(settings_of(StudioSettings, "DETEX_STUDIO_"))}),
        OPERATIONS: with_parts(
            OPERATIONS,
            {
                "settings of both services": variables_table(service_settings(ServiceSettings)),
                "settings of the object store": variables_table(object_store_settings()),
                "settings of a base model": table(
                    ["key", "accepted", "default", "meaning"],
                    [
                        [f"`{each.field}`", each.accepted, each.default, each.description]
                        for each in settings_of(BaseModelSettings, "")
                    ],
                ),
                "settings of the trainer": variables_table(own_settings(TrainerSettings)),
                "settings of the generator": variables_table(own_settings(GeneratorSettings)),
                "metrics of both services": table(HEADS, shared_metrics()),
                "metrics of the trainer": table(HEADS, trainer_metrics()),
                "metrics of the generator": table(HEADS, generator_metrics()),
            },
        ),
    }


def main() -> int:
    """Write the documents, or look whether they are fresh; the exit status."""
    os.environ.pop("XDG_STATE_HOME", None)  # defaults that depend on it are shown as they are without it
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
