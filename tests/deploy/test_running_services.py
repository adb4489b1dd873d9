"""Both services as processes, as a container starts them: probes, metrics, the end on SIGTERM, refused settings."""

import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from detex_protos.v1 import generator_pb2, generator_pb2_grpc, trainer_pb2, trainer_pb2_grpc
from tests.deploy.running_service import START_SECONDS, RunningService, environment, poll, start_service
from tests.tiny_models import write_tiny_model

pytestmark = pytest.mark.slow

SERVICES = ("trainer", "generator")


def metrics_of(service: RunningService) -> str:
    """The metrics after one good and one refused call."""
    with grpc.insecure_channel(service.address) as channel:
        if service.name == "trainer":
            trainer = trainer_pb2_grpc.TrainerServiceStub(channel)
            trainer.ListJobs(trainer_pb2.ListJobsRequest(), timeout=30)
            with pytest.raises(grpc.RpcError):
                trainer.GetJob(trainer_pb2.GetJobRequest(job_id="none"), timeout=30)
        else:
            generator = generator_pb2_grpc.GeneratorServiceStub(channel)
            generator.ListBaseModels(generator_pb2.ListBaseModelsRequest(), timeout=30)
            request = generator_pb2.GenerateRequest(prompt="a [no-such-concept]", steps=1)
            with pytest.raises(grpc.RpcError):
                list(generator.Generate(request, timeout=30))
    status, text = service.get("/metrics")
    assert status == 200
    return text


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, RunningService]]:
    """Both services, started side by side."""
    folder = tmp_path_factory.mktemp("services")
    source = write_tiny_model(folder / "tiny")
    base_models = json.dumps([{"name": "tiny", "source": str(source), "default_steps": 1}])
    services = {}
    for name in SERVICES:
        variables = environment(folder, DETEX_BASE_MODELS=base_models)
        services[name] = start_service(name, folder / f"{name}.log", variables)
    try:
        for service in services.values():
            service.wait_until_listening()
        yield services
    finally:
        for service in services.values():
            service.process.kill()
            service.process.wait()


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest, running: dict[str, RunningService]) -> RunningService:
    """One of them, ready."""
    one = running[request.param]
    poll(lambda: one.health() == "SERVING")
    return one


def test_probes_are_answered(service: RunningService) -> None:
    assert service.get("/healthz") == (200, "ok\n")
    poll(lambda: service.get("/readyz")[0] == 200)
    assert service.get("/elsewhere")[0] == 404


def test_metrics_are_clean(service: RunningService, root: Path) -> None:
    text = metrics_of(service)
    promtool = root / ".tools" / "bin" / "promtool"
    assert promtool.exists(), "no promtool; run `make tools`"
    done = subprocess.run([str(promtool), "check", "metrics"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_promtool_is_awake(root: Path) -> None:
    promtool = root / ".tools" / "bin" / "promtool"
    bad = "# TYPE waitMs counter\nwaitMs 1\n"
    done = subprocess.run([str(promtool), "check", "metrics"], input=bad, capture_output=True, text=True)
    assert done.returncode != 0
    assert "counter metrics should have" in done.stderr + done.stdout


def test_metrics_tell_of_the_calls(service: RunningService) -> None:
    families = {family.name: family for family in text_string_to_metric_families(metrics_of(service))}
    handled: Counter[tuple[str, str]] = Counter()
    for sample in families["grpc_server_handled"].samples:
        if sample.name == "grpc_server_handled_total":
            handled[sample.labels["grpc_service"], sample.labels["grpc_code"]] += int(sample.value)
    name = f"detex.v1.{service.name.title()}Service"
    assert handled[name, "OK"] >= 1
    assert handled[name, "NOT_FOUND"] >= 1
    (build,) = families["detex_build_info"].samples
    assert build.labels["service"] == service.name


def test_documented_metrics_are_those_that_are_served(service: RunningService, root: Path) -> None:
    """What the services serve, for example with a collector that no document knows of, stands in the document."""
    served = {line.split()[2] for line in metrics_of(service).splitlines() if line.startswith("# TYPE ")}
    own = {name for name in served if name.startswith(("detex_", "grpc_")) and not name.endswith("_created")}
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", (root / "docs/operations.md").read_text(), re.MULTILINE))
    assert len(own) > 10
    assert own <= documented


def test_alerts_ask_for_what_is_served(service: RunningService, chart: Path) -> None:
    """Each name and each label value in them is there before anything has happened."""
    samples = [sample for family in text_string_to_metric_families(metrics_of(service)) for sample in family.samples]
    rules = [
        rule
        for group in yaml.safe_load((chart / "alerts" / "detex.rules.yaml").read_text())["groups"]
        for rule in group["rules"]
    ]
    asked = {match for rule in rules for match in re.findall(r"\b(detex_[a-z_]+)(?:\{([^}]*)\})?", rule["expr"])}
    own = {(name, labels) for name, labels in asked if name.startswith((f"detex_{service.name}_", "detex_ready"))}
    assert len(own) > 8
    for name, labels in own:
        matchers = re.findall(r'(\w+)(=~|!~|=)"([^"]*)"', labels)
        assert len(matchers) == labels.count('"') / 2
        found = [sample for sample in samples if sample.name == name]
        assert found, name
        for label, _, values in matchers:
            served = {sample.labels.get(label) for sample in found}
            assert set(values.split("|")) <= served, (name, label)


def test_dashboards_ask_for_what_is_served(service: RunningService, chart: Path) -> None:
    families = {family.name for family in text_string_to_metric_families(metrics_of(service))}
    paths = sorted((chart / "dashboards").glob("*.json"))
    models = [json.loads(path.read_text()) for path in paths]
    expressions = [target["expr"] for model in models for panel in model["panels"] for target in panel["targets"]]
    asked = {name for each in expressions for name in re.findall(r"\b(?:detex|grpc|process)_[a-z_]+", each)}
    asked -= {"grpc_service"}  # a label
    own = {name for name in asked if name.startswith((f"detex_{service.name}_", "detex_ready", "grpc_", "process_"))}
    assert len(own) > 10
    assert {
        name for name in own if {name, re.sub("_(bucket|sum|count|total)$", "", name)}.isdisjoint(families)
    } == set()


@pytest.mark.parametrize("component", SERVICES)
def test_sigterm_ends_in_order(running: dict[str, RunningService], component: str) -> None:
    """The last test of the module: it ends the services."""
    one = running[component]
    poll(lambda: one.health() == "SERVING")
    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(60) == 0, one.log.read_text()
    messages = [record["message"] for record in one.records()]
    assert messages.index("draining") < messages.index("ended")


@pytest.mark.parametrize("component", SERVICES)
def test_refused_settings_are_told_in_a_sentence(tmp_path: Path, component: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"detex_{component}"],
        env=environment(tmp_path, DETEX_DRAIN_GRACE_SECONDS="-1", DETEX_S3_SECRET_KEY="hidden"),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )
    assert done.returncode > 0
    assert "drain_grace_seconds" in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert "hidden" not in done.stderr


def test_dashboards_need_no_other_port(chart: Path) -> None:
    """The port of the chart is the port of the services, so that documents can name one."""
    from detex_core.settings import ServiceSettings

    values = yaml.safe_load((chart / "values.yaml").read_text())
    default = ServiceSettings.model_fields["metrics_address"].default
    assert str(values["metrics"]["port"]) == default.rpartition(":")[2]
