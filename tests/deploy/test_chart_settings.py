"""The settings that the chart renders are settings that the services read."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detex_core.object_store.location import S3Location, parse_location
from detex_core.settings import ServiceSettings
from detex_core.tracing_switch import tracing_is_on
from detex_generator.settings import GeneratorSettings
from detex_trainer.domain.attribute_vocabulary import AttributeVocabulary
from detex_trainer.settings import TrainerSettings
from scripts.generate_reference import CHART_OWNED, CHART_OWNED_OF_STORE, object_store_settings, service_settings
from scripts.settings_fields import Setting, camel_case

CLASSES: dict[str, type[ServiceSettings]] = {"trainer": TrainerSettings, "generator": GeneratorSettings}
FROM_SECRETS = {
    "DETEX_S3_ACCESS_KEY": "user",
    "DETEX_S3_SECRET_KEY": "secret",
    "DETEX_DATABASE_URL": "postgresql+psycopg://user:secret@host/name",
}

Environment = Callable[..., dict[str, str]]


@pytest.fixture
def environment(render, find) -> Environment:
    """The variables of a service's container, those from Secrets with values made up here."""

    def variables(component: str, example: str | None = None, **values: str) -> dict[str, str]:
        manifests = render(example, **values)
        (container,) = find(manifests, "Deployment", f"-{component}")["spec"]["template"]["spec"]["containers"]
        found: dict[str, str] = {}
        for source in container["envFrom"]:
            found |= find(manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
        for variable in container["env"]:
            found[variable["name"]] = variable.get("value") or FROM_SECRETS.get(variable["name"], "secret")
        assert all(isinstance(value, str) for value in found.values())
        return found

    return variables


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, str]], Any]:
    """The settings of a service as its own class reads them from these variables and no others."""

    def settings(component: str, variables: dict[str, str]) -> Any:
        for name in [name for name in os.environ if name.startswith("DETEX_")]:
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return CLASSES[component]()

    return settings


@pytest.mark.parametrize("component", sorted(CLASSES))
def test_every_variable_is_a_setting_and_is_accepted(environment, parsed, example: str, component: str) -> None:
    known = {setting.variable for setting in service_settings(CLASSES[component])}
    known |= {setting.variable for setting in object_store_settings()}
    variables = environment(component, example)
    assert {name for name in variables if name.startswith("DETEX_")} <= known
    settings = parsed(component, variables)
    assert settings.listen_address == "0.0.0.0:50051"
    assert settings.log_format == "json"
    assert str(settings.work_folder) == "/var/lib/detex"
    location = parse_location(settings.object_store.url)
    assert isinstance(location, S3Location)


def test_base_models_arrive(environment, parsed) -> None:
    settings = parsed("generator", environment("generator", "gpu-values.yaml"))
    assert [(model.name, model.source, model.default_steps) for model in settings.base_models] == [
        ("sd15", "/models/sd15", 30),
        ("showroom", "embedded", 25),
    ]
    assert settings.base_models[0].image_encoder_source == "/models/clip-vit-large-patch14"
    assert settings.default_base_model == "sd15"
    assert settings.concept_cache_bytes == 17179869184


def test_what_was_compiled_lies_on_its_volume(environment, parsed, render, find) -> None:
    assert "DETEX_COMPILE_CACHE_FOLDER" not in environment("generator")
    values = {"generator.compileCache.existingClaim": '"compiled"'}
    arrived = environment("generator", **values)
    assert parsed("generator", arrived).compile_cache_folder == arrived["DETEX_COMPILE_CACHE_FOLDER"]
    assert "DETEX_COMPILE_CACHE_FOLDER" not in environment("trainer", **values)
    for component, has_it in (("generator", True), ("trainer", False)):
        pod = find(render(None, **values), "Deployment", f"-{component}")["spec"]["template"]["spec"]
        mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert (mounts.get("compile-cache") == arrived["DETEX_COMPILE_CACHE_FOLDER"]) is has_it
        claims = [volume.get("persistentVolumeClaim", {}).get("claimName") for volume in pod["volumes"]]
        assert ("compiled" in claims) is has_it


def test_outside_store_arrives(environment, parsed) -> None:
    settings = parsed("trainer", environment("trainer", "external-services-values.yaml"))
    assert parse_location(settings.object_store.url) == S3Location(
        "example-concepts", "detex/staging", "s3.example.com", True, "eu-central-1"
    )
    assert settings.object_store.connect_timeout_seconds == 5
    assert settings.object_store.part_size_bytes == 67108864
    assert settings.database_url == FROM_SECRETS["DETEX_DATABASE_URL"]


def test_sqlite_lies_on_the_volume(environment, parsed) -> None:
    settings = parsed("trainer", environment("trainer"))
    assert settings.jobs_url() == "sqlite:////var/lib/detex/jobs.db"


def test_own_store_is_the_minio_of_the_chart(environment, parsed, render, find) -> None:
    location = parse_location(parsed("generator", environment("generator")).object_store.url)
    service = find(render(), "Service", "-minio")
    assert location.endpoint == f"{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert location.secure is False


@pytest.mark.parametrize(
    ("cpu", "workers", "threads", "each"),
    [("4", 1, "4", 4), (8, 3, "8", 2), ("2500m", 1, "2", 2), ("500m", 1, "1", 1), ("1", 4, "1", 1), ("0.5", 1, "1", 1)],
)
def test_threads_follow_the_cpus_asked_for(environment, parsed, cpu, workers, threads, each) -> None:
    values = {"trainer.resources.requests.cpu": json.dumps(cpu), "trainer.settings.workerCount": str(workers)}
    variables = environment("trainer", **values)
    assert variables["OMP_NUM_THREADS"] == threads
    assert parsed("trainer", variables).threads_per_worker() == each
    values = {"generator.resources.requests.cpu": json.dumps(cpu)}
    assert environment("generator", **values)["OMP_NUM_THREADS"] == threads


def test_threads_can_be_set_or_left_alone(environment) -> None:
    assert environment("trainer", **{"trainer.settings.workerThreads": "7"})["DETEX_WORKER_THREADS"] == "7"
    variables = environment("trainer", **{"trainer.resources": '{"requests": null}'})
    assert not {"OMP_NUM_THREADS", "DETEX_WORKER_THREADS"} & set(variables)


def test_a_service_s_own_settings_win(environment) -> None:
    values = {"settings.logLevel": '"WARNING"', "trainer.settings.logLevel": '"DEBUG"'}
    assert environment("trainer", **values)["DETEX_LOG_LEVEL"] == "DEBUG"
    assert environment("generator", **values)["DETEX_LOG_LEVEL"] == "WARNING"


def other_value(setting: Setting) -> Any:
    """A value that the schema accepts, other than the default where there is another."""
    schema = setting.schema
    if setting.field == "base_models":
        return [{"name": "other", "source": "store:models/other", "defaultSteps": 7}]
    if setting.field == "default_base_model":
        return "showroom"
    if setting.field == "kernels":
        return "torch"
    if setting.field == "identity":
        return "0123456789abcdef" * 2
    if setting.field == "segmenter":
        return "none"
    if setting.field == "audit_log_file":
        return "/var/lib/detex/audit.jsonl"
    if setting.field == "attribute_vocabulary":
        return {"subject": ["lying", "upside down"], "background": []}
    if "enum" in schema:
        return schema["enum"][-1]
    if schema["type"] == "boolean":
        return True
    if schema["type"] in {"integer", "number"}:
        return schema.get("maximum", 3 * 1024**3)
    raise AssertionError(f"no value known for {setting}")


@pytest.mark.parametrize("component", sorted(CLASSES))
def test_every_setting_can_be_set(environment, parsed, component: str) -> None:
    """Each one goes through values, schema, ConfigMap and environment into the settings class unchanged."""
    wanted = {
        setting.field: other_value(setting)
        for setting in service_settings(CLASSES[component])
        if setting.field not in CHART_OWNED
    }
    wanted["max_images_per_request"] = 1
    wanted = {name: value for name, value in wanted.items() if name in CLASSES[component].model_fields}
    apart = {"base_models"} if "default_base_model" in wanted else set()  # each name must be known to the other
    if component == "trainer":
        wanted["reconcile_interval_seconds"] = 2
        apart.add("compile_unet")  # not with gradient_checkpointing
    for names in (set(wanted) - apart, apart):
        values = {f"{component}.settings.{camel_case(name)}": json.dumps(wanted[name]) for name in names}
        settings = parsed(component, environment(component, **values))
        for name in names - {"base_models"}:
            found = getattr(settings, name)
            if isinstance(found, AttributeVocabulary):
                found = found.model_dump(mode="json", exclude_unset=True)
            if isinstance(found, Path):
                found = str(found)
            assert found == wanted[name], name
    assert [model.model_dump(exclude_unset=True) for model in settings.base_models] == [
        {"name": "other", "source": "store:models/other", "default_steps": 7}
    ]


def test_traces_go_where_the_values_say(environment) -> None:
    assert not [name for name in environment("generator") if name.startswith("OTEL_")]
    values = {"generator.tracing.endpoint": '"http://collector:4317"', "generator.tracing.samplingRatio": "0.25"}
    assert not [name for name in environment("trainer", **values) if name.startswith("OTEL_")]
    variables = environment("generator", **values)
    assert tracing_is_on(variables)
    assert variables["OTEL_TRACES_SAMPLER"] == "parentbased_traceidratio"
    assert float(variables["OTEL_TRACES_SAMPLER_ARG"]) == 0.25


def test_every_setting_of_the_object_store_can_be_set(environment, parsed) -> None:
    wanted = {
        each.field: other_value(each) for each in object_store_settings() if each.field not in CHART_OWNED_OF_STORE
    }
    assert wanted
    values = {f"objectStore.settings.{camel_case(name)}": json.dumps(value) for name, value in wanted.items()}
    store = parsed("generator", environment("generator", **values)).object_store
    assert {name: getattr(store, name) for name in wanted} == wanted


@pytest.mark.parametrize("component", sorted(CLASSES))
@pytest.mark.parametrize(("delay", "grace"), [(0, 0), (5, 60), (0.5, 299.5), (600, 86400)])
def test_pods_are_not_killed_while_they_drain(render, find, parsed, environment, component, delay, grace) -> None:
    values = {"settings.drainDelaySeconds": str(delay), "settings.drainGraceSeconds": str(grace)}
    if component == "trainer":
        values["trainer.settings.workerStopGraceSeconds"] = "120"
    pod = find(render(**values), "Deployment", f"-{component}")["spec"]["template"]["spec"]
    settings = parsed(component, environment(component, **values))
    needed = settings.drain_delay_seconds + settings.drain_grace_seconds
    needed += getattr(settings, "worker_stop_grace_seconds", 0)
    assert needed + 10 <= pod["terminationGracePeriodSeconds"] <= needed + 60


def test_defaults_of_the_service_count_for_the_grace_period(render, find) -> None:
    """A setting that the values leave out still takes its time."""
    values = {"settings": json.dumps({"drainGraceSeconds": None, "drainDelaySeconds": None})}
    pod = find(render(**values), "Deployment", "-trainer")["spec"]["template"]["spec"]
    fields = TrainerSettings.model_fields
    names = ("drain_delay_seconds", "drain_grace_seconds", "worker_stop_grace_seconds")
    assert pod["terminationGracePeriodSeconds"] > sum(fields[name].default for name in names)


def test_callers_are_known_or_the_installation_says_that_it_is_open(environment, parsed, refusal, render, find) -> None:
    assert "access: must have tlsSecret and policySecret" in refusal(**{"access.insecure": "false"})
    assert "access: must have" in refusal(**{"access.insecure": "false", "access.tlsSecret": '"detex-tls"'})
    closed = {"access.insecure": "false", "access.tlsSecret": '"detex-tls"', "access.policySecret": '"detex-access"'}
    for component in CLASSES:
        settings = parsed(component, environment(component, **closed))
        assert settings.insecure is False
        assert str(settings.tls_certificate_file) == "/etc/detex/tls/tls.crt"
        assert str(settings.access_policy_file) == "/etc/detex/access/policy.yaml"
        pod = find(render(None, **closed), "Deployment", f"-{component}")["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert (places["tls"], places["access"]) == ("/etc/detex/tls", "/etc/detex/access")
        secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        assert secrets == {"tls": "detex-tls", "access": "detex-access"}
        # Probes of Kubernetes speak no TLS over gRPC.
        for probe in ("startupProbe", "readinessProbe"):
            assert container[probe]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    assert parsed("trainer", environment("trainer")).insecure is True
