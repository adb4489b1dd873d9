"""Settings from the environment."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from detex_core.errors import InvalidInputError
from detex_core.object_store import open_object_store
from detex_core.object_store.location import FolderLocation, S3Location, parse_location
from detex_core.settings import BaseModelSettings, ObjectStoreSettings, ServiceSettings

S3_URL = "s3://bucket/some/prefix?endpoint=minio:9000&secure=false&region=eu-west-1"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("DETEX_"):
            monkeypatch.delenv(name)


def test_defaults_serve_the_embedded_model_from_a_folder_on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    settings = ServiceSettings()
    assert settings.base_model() == BaseModelSettings(name="showroom", source="embedded")
    assert settings.object_store.url == "folder:///var/state/detex/object_store"
    assert settings.listen_address.startswith("127.0.0.1:")
    assert settings.metrics_address.startswith("127.0.0.1:")
    assert settings.allow_downloads is False


def test_everything_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    base_models = [
        {"name": "showroom", "source": "embedded"},
        {
            "name": "sd15",
            "source": "store:base_models/sd15",
            "image_encoder_source": "/models/clip",
            "default_steps": 40,
        },
    ]
    for name, value in {
        "LISTEN_ADDRESS": "[::]:50051",
        "METRICS_ADDRESS": "",
        "OBJECT_STORE_URL": S3_URL,
        "OBJECT_STORE_CONNECT_TIMEOUT_SECONDS": "0.5",
        "S3_ACCESS_KEY": "user",
        "S3_SECRET_KEY": "hush",
        "BASE_MODELS": json.dumps(base_models),
        "DEFAULT_BASE_MODEL": "sd15",
        "DEVICE": "cuda",
        "DTYPE": "bfloat16",
        "DRAIN_GRACE_SECONDS": "5",
        "LOG_LEVEL": "DEBUG",
        "WORK_FOLDER": "/var/detex",
    }.items():
        monkeypatch.setenv(f"DETEX_{name}", value)
    settings = ServiceSettings()
    assert settings.base_model().name == "sd15"
    assert settings.base_model().default_steps == 40
    assert settings.base_model("showroom").source == "embedded"
    assert settings.object_store.connect_timeout_seconds == 0.5
    assert settings.object_store.secret_key is not None
    assert settings.object_store.secret_key.get_secret_value() == "hush"
    assert (settings.listen_address, settings.metrics_address) == ("[::]:50051", "")
    assert (settings.device, settings.dtype, settings.work_folder) == ("cuda", "bfloat16", Path("/var/detex"))
    assert "hush" not in repr(settings)
    assert "hush" not in settings.model_dump_json()


def test_unknown_base_models_are_invalid_input_that_names_the_known() -> None:
    with pytest.raises(InvalidInputError, match="showroom") as raised:
        ServiceSettings().base_model("sdxl")
    assert raised.value.violations[0].field == "base_model"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("LISTEN_ADDRESS", "50051", "listen_address"),
        ("DEVICE", "tpu", "device"),
        ("OBJECT_STORE_URL", "http://minio:9000", "s3://bucket"),
        ("OBJECT_STORE_URL", "s3://user:hush@bucket/prefix", "credentials"),
        ("OBJECT_STORE_URL", S3_URL, "DETEX_S3_ACCESS_KEY"),
        ("OBJECT_STORE_PART_SIZE_BYTES", "1024", "part_size_bytes"),
        ("BASE_MODELS", "[]", "base_models"),
        ("BASE_MODELS", '[{"name": "a", "source": "/a"}, {"name": "a", "source": "/b"}]', "names must be unique"),
        ("BASE_MODELS", '[{"name": "a", "source": "relative/path"}]', "absolute path"),
        ("BASE_MODELS", '[{"name": "a", "source": "/a", "steps": 3}]', "steps"),
        ("BASE_MODELS", '[{"name": "a", "source": "/a", "default_guidance_scale": "nan"}]', "default_guidance_scale"),
        ("DEFAULT_BASE_MODEL", "sdxl", "showroom"),
        ("DRAIN_GRACE_SECONDS", "-1", "drain_grace_seconds"),
        ("MAX_MESSAGE_BYTES", "99999999999", "max_message_bytes"),
    ],
)
def test_wrong_values_are_told_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str) -> None:
    monkeypatch.setenv(f"DETEX_{name}", value)
    with pytest.raises(ValidationError, match=told) as raised:
        ServiceSettings()
    assert "hush" not in str(raised.value).replace(value, "")


def test_unknown_settings_are_refused_and_settings_stay_as_they_are() -> None:
    with pytest.raises(ValidationError, match="listen_adress"):
        ServiceSettings(listen_adress="127.0.0.1:1")  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="frozen"):
        ServiceSettings().device = "cpu"  # type: ignore[misc]


def test_services_add_fields_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    class TrainerSettings(ServiceSettings):
        listen_address: str = "127.0.0.1:50055"
        database_url: str = "sqlite://"

    monkeypatch.setenv("DETEX_DATABASE_URL", "postgresql://db/detex")
    settings = TrainerSettings()
    assert (settings.listen_address, settings.database_url) == ("127.0.0.1:50055", "postgresql://db/detex")


def test_a_folder_url_opens_a_folder(tmp_path: Path) -> None:
    store = open_object_store(ObjectStoreSettings(url=f"folder://{tmp_path}/with%20space"))
    store.put("key", b"data")
    assert (tmp_path / "with space" / "objects" / "key").read_bytes() == b"data"


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("folder:///srv/detex", FolderLocation(Path("/srv/detex"))),
        (S3_URL, S3Location("bucket", "some/prefix", "minio:9000", secure=False, region="eu-west-1")),
        ("s3://bucket", S3Location("bucket", "", "s3.amazonaws.com", secure=True, region="us-east-1")),
        ("s3://bucket/?endpoint=[::1]:9000", S3Location("bucket", "", "[::1]:9000", secure=True, region="us-east-1")),
    ],
)
def test_locations(url: str, location: FolderLocation | S3Location) -> None:
    assert parse_location(url) == location


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/srv/detex",
        "folder://srv/detex",
        "folder:relative",
        "folder:///srv?x=1",
        "s3:///prefix",
        "s3://B",
        "s3://bucket/a//b",
        "s3://bucket/..",
        "s3://bucket?secure=no",
        "s3://bucket?endpoint=http://minio:9000",
        "s3://bucket?endpoint=a&endpoint=b",
        "s3://bucket?unknown=1",
        "s3://bucket?endpoint",
        "s3://[bucket",
    ],
)
def test_wrong_locations(url: str) -> None:
    with pytest.raises(ValueError, match="must be folder:///absolute/path"):
        parse_location(url)


@given(url=st.text(max_size=60) | st.text(max_size=40).map(lambda rest: f"s3://bucket{rest}"))
def test_any_text_is_a_location_or_a_value_error(url: str) -> None:
    try:
        parse_location(url)
    except ValueError:
        return


@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " {}\t", "\ufeff{}"])
def test_what_files_have_around_values_does_not_count(monkeypatch: pytest.MonkeyPatch, around: str) -> None:
    given = {
        "LISTEN_ADDRESS": "127.0.0.1:1",
        "METRICS_ADDRESS": "",
        "OBJECT_STORE_URL": S3_URL,
        "S3_ACCESS_KEY": "user",
        "S3_SECRET_KEY": "hush",
        "DEFAULT_BASE_MODEL": "mine",
        "DEVICE": "cpu",
        "ALLOW_DOWNLOADS": "true",
        "WORK_FOLDER": "/var/detex",
        "LOG_LEVEL": "DEBUG",
        "READINESS_INTERVAL_SECONDS": "0.5",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"DETEX_{name}", around.format(value))
    folder = around.format("/models/mine")
    monkeypatch.setenv("DETEX_BASE_MODELS", json.dumps([{"name": around.format("mine"), "source": folder}]))
    settings = ServiceSettings()
    assert (settings.listen_address, settings.metrics_address, settings.device) == ("127.0.0.1:1", "", "cpu")
    assert (settings.allow_downloads, settings.log_level, settings.work_folder) == (True, "DEBUG", Path("/var/detex"))
    assert settings.base_model() == BaseModelSettings(name="mine", source="/models/mine")
    assert settings.object_store.url == S3_URL
    assert settings.object_store.access_key is not None
    assert settings.object_store.access_key.get_secret_value() == "user"


@pytest.mark.parametrize(
    "url", ["s3://bucket?endpoint=user:hush@minio:9000", "s3://bucket?endpoint=minio&user:hush@x=1", "s4://user:hush@x"]
)
def test_credentials_in_a_wrong_url_are_not_repeated(url: str) -> None:
    with pytest.raises(ValidationError) as raised:
        ObjectStoreSettings(url=url)
    assert "hush" not in str(raised.value)
