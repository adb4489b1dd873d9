"""The manifest's schema."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from detex_core.artifact import ConceptDraft, FileRecord, Manifest
from detex_core.artifact.manifest import concept_version
from tests.core.concepts import draft

VERSION = "20260131T120000Z-0a1b2c3d"


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        **dict(draft()),
        "version": VERSION,
        "files": {"concept.safetensors": FileRecord(size_bytes=3, sha256="a" * 64)},
        "create_time": datetime(2026, 1, 31, 12, tzinfo=UTC),
    }
    return Manifest(**{**fields, **changes})


@given(
    metrics=st.dictionaries(st.text(max_size=10), st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    hyperparameters=st.dictionaries(
        st.text(max_size=10),
        st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=10),
        max_size=4,
    ),
    class_word=st.text(min_size=1, max_size=64),
    create_time=st.datetimes(timezones=st.just(UTC)),
)
def test_manifests_survive_json(**changes: Any) -> None:
    written = manifest(**changes)
    assert Manifest.model_validate_json(written.model_dump_json(indent=2)) == written


@pytest.mark.parametrize("place", ["manifest", "attribute", "key_value", "file"])
def test_unknown_keys_are_refused(place: str) -> None:
    content = manifest().model_dump(mode="json")
    target = {
        "manifest": content,
        "attribute": content["attributes"][0],
        "key_value": content["key_value"],
        "file": content["files"]["concept.safetensors"],
    }[place]
    target["surprise"] = 1
    with pytest.raises(ValidationError, match="surprise"):
        Manifest.model_validate(content)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schema_version", 2),
        ("name", "My-Mug"),
        ("name", "my-mug\n"),
        ("tenant", "../acme"),
        ("version", "newest"),
        ("method", "magic"),
        ("base_model_fingerprint", "0" * 63),
        ("subject_tokens", 0),
        ("subject_tokens", 9),
        ("dtype", "float64"),
        ("files", {"concept.pickle": {"size_bytes": 1, "sha256": "0" * 64}}),
        ("files", {"../x.json": {"size_bytes": 1, "sha256": "0" * 64}}),
        ("files", {"report.json": {"size_bytes": -1, "sha256": "0" * 64}}),
        ("metrics", {"loss_final": float("nan")}),
        ("metrics", {"loss_final": float("inf")}),
        ("hyperparameters", {"learning_rate": float("nan")}),
        ("attributes", [{"name": "Pose", "count": 1}]),
        ("attributes", [{"name": "pose", "count": 0}]),
        ("attributes", [{"name": "pose", "count": 4}, {"name": "pose", "count": 2}]),
        ("create_time", "2026-01-31T12:00:00"),
    ],
)
def test_values_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        manifest(**{field: value})


def test_every_field_is_needed() -> None:
    content = manifest().model_dump(mode="json")
    for field in set(Manifest.model_fields) - {"schema_version", "unet"}:
        with pytest.raises(ValidationError, match=field):
            Manifest.model_validate({name: value for name, value in content.items() if name != field})


def test_manifests_without_deltas_of_the_unet_say_nothing_of_them() -> None:
    content = manifest().model_dump(mode="json")
    content.pop("unet")
    assert Manifest.model_validate(content).unet.form == "none"


def test_manifests_and_drafts_stay_as_they_are() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        manifest().name = "other"  # type: ignore[misc]
    assert set(ConceptDraft.model_fields) < set(Manifest.model_fields)


def test_attributes_are_found_by_name() -> None:
    found = manifest().attribute("background")
    assert found is not None
    assert found.count == 4
    assert manifest().attribute("light") is None


def test_versions_carry_utc_and_content() -> None:
    time = datetime(2026, 1, 31, 21, 30, 5, 999_999, tzinfo=timezone(timedelta(hours=9)))
    assert concept_version(time, "0a1b2c3d" + "f" * 56) == "20260131T123005Z-0a1b2c3d"
    with pytest.raises(ValueError, match="zone"):
        concept_version(datetime(2026, 1, 31), "0" * 64)  # noqa: DTZ001
    with pytest.raises(ValueError, match="SHA-256"):
        concept_version(time, "0a1b2c3d")


@given(times=st.lists(st.datetimes(datetime(1000, 1, 1), timezones=st.just(UTC)), min_size=2, max_size=5))  # noqa: DTZ001
def test_versions_sort_by_age(times: list[datetime]) -> None:
    by_age = sorted({time.replace(microsecond=0) for time in times})
    assert sorted(concept_version(time, "0" * 64) for time in by_age) == [
        concept_version(time, "0" * 64) for time in by_age
    ]
