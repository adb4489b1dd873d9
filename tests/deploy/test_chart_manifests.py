"""What the chart renders for each example installation: valid, closed, and consistent in itself."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

OPERATOR_KINDS = {"PrometheusRule", "ServiceMonitor"}  # of the Prometheus operator; no schema of Kubernetes knows them
OLDEST, NEWEST = "1.27", "1.37"


def pod_specs(manifests: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for manifest in manifests:
        if manifest["kind"] in {"Deployment", "StatefulSet"}:
            yield manifest, manifest["spec"]["template"]["spec"]
        elif manifest["kind"] == "CronJob":
            yield manifest, manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def test_lint_is_clean(helm, chart: Path, example: str) -> None:
    done = helm("lint", "--strict", str(chart), "--values", str(chart / "ci" / example))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_manifests_fit_kubernetes(render, example: str, version: str) -> None:
    checked = 0
    for manifest in render(example):
        if manifest["kind"] not in OPERATOR_KINDS:
            kubernetes_validate.validate(manifest, version, strict=True)
            checked += 1
    assert checked >= 10


def test_validation_refuses_unknown_fields(render, find) -> None:
    """Otherwise the test above would say little."""
    deployment = yaml.safe_load(yaml.safe_dump(find(render(), "Deployment", "-trainer")))
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, NEWEST, strict=True)


def test_oldest_version_is_the_charts(chart: Path) -> None:
    assert yaml.safe_load((chart / "Chart.yaml").read_text())["kubeVersion"] == f">={OLDEST}.0-0"


def test_names_are_unique_and_labelled(render, example: str) -> None:
    manifests = render(example)
    names = [(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests]
    assert len(set(names)) == len(names)
    for manifest in manifests:
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "shop"
        assert labels["app.kubernetes.io/component"] in {
            "trainer",
            "generator",
            "catalog",
            "studio",
            "minio",
            "postgresql",
        }
        assert len(manifest["metadata"]["name"]) <= 63


def test_long_names_stay_within_limits(render) -> None:
    for manifest in render(fullnameOverride='"' + "a" * 80 + '"'):
        assert len(manifest["metadata"]["name"]) <= 63


def test_pods_are_confined(render, example: str) -> None:
    for manifest, pod in pod_specs(render(example)):
        name = manifest["metadata"]["name"]
        assert pod["automountServiceAccountToken"] is False, name
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["runAsUser"] > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        assert not any("hostPath" in volume for volume in pod["volumes"]), name
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}, name
            assert "memory" in container["resources"]["limits"], name


def test_accounts_hold_no_token(render, example: str) -> None:
    for manifest in render(example):
        if manifest["kind"] == "ServiceAccount":
            assert manifest["automountServiceAccountToken"] is False


def test_mounts_and_volumes_agree(render, example: str) -> None:
    for manifest, pod in pod_specs(render(example)):
        volumes = [volume["name"] for volume in pod["volumes"]]
        volumes += [claim["metadata"]["name"] for claim in manifest["spec"].get("volumeClaimTemplates", [])]
        mounts = [mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]]
        assert sorted(volumes) == sorted(mounts), manifest["metadata"]["name"]


def test_services_reach_pods(render, example: str) -> None:
    manifests = render(example)
    targets = [
        (manifest["spec"]["template"]["metadata"]["labels"], pod)
        for manifest, pod in pod_specs(manifests)
        if manifest["kind"] != "CronJob"
    ]
    services = [manifest for manifest in manifests if manifest["kind"] == "Service"]
    assert len(services) >= 4
    for service in services:
        selector = service["spec"]["selector"].items()
        (pod,) = (pod for labels, pod in targets if selector <= labels.items())
        ports = {port["name"] for container in pod["containers"] for port in container["ports"]}
        for port in service["spec"]["ports"]:
            assert port["protocol"] == "TCP"
            assert port["targetPort"] in ports


def test_grpc_ports_say_what_they_speak(render, find) -> None:
    for component in ("trainer", "generator"):
        (port,) = find(render(), "Service", f"-{component}")["spec"]["ports"]
        assert (port["port"], port["appProtocol"]) == (50051, "grpc")


def test_probes_ask_the_services(render, find) -> None:
    from detex_protos.v1 import generator_pb2, trainer_pb2

    known = {
        service.full_name
        for module in (trainer_pb2, generator_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
    }
    for component in ("trainer", "generator"):
        (container,) = find(render(), "Deployment", f"-{component}")["spec"]["template"]["spec"]["containers"]
        ports = {port["containerPort"]: port["name"] for port in container["ports"]}
        for probe in (container["startupProbe"], container["readinessProbe"]):
            assert ports[probe["grpc"]["port"]] == "grpc"
            assert probe["grpc"]["service"] in known
            assert component in probe["grpc"]["service"].lower()
        # Not the health of gRPC, which is NOT_SERVING while the object store is away: no reason to restart.
        assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}


def test_startup_time_is_kept(render, find) -> None:
    manifests = render(**{"generator.startupSeconds": "1801"})
    (container,) = find(manifests, "Deployment", "-generator")["spec"]["template"]["spec"]["containers"]
    probe = container["startupProbe"]
    assert 1801 <= probe["periodSeconds"] * probe["failureThreshold"] < 1806


def test_credentials_come_from_secrets_only(render, example: str) -> None:
    manifests = render(example)
    assert not [manifest for manifest in manifests if manifest["kind"] == "Secret"]
    for manifest in manifests:
        for key, value in manifest.get("data", {}).items():
            names_file = key.endswith("_FILE") and value.startswith("/etc/detex/")
            assert names_file or not {"SECRET", "PASSWORD", "ACCESS"} & set(key.split("_")), f"{key}={value}"
    secret = {"DETEX_S3_ACCESS_KEY", "DETEX_S3_SECRET_KEY", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"}
    secret |= {"PGPASSWORD", "POSTGRES_PASSWORD"}
    for _, pod in pod_specs(manifests):
        for container in pod["containers"]:
            for variable in container["env"]:
                if variable["name"] in secret:
                    assert set(variable) == {"name", "valueFrom"}
                    assert set(variable["valueFrom"]["secretKeyRef"]) == {"name", "key"}
                assert ":" not in variable.get("value", "").partition("://")[2].partition("@")[0]


@pytest.fixture
def trainer_of(render, find) -> Callable[..., dict[str, Any]]:
    return lambda example, **values: find(render(example, **values), "Deployment", "-trainer")["spec"]


def test_sqlite_keeps_one_trainer_on_its_volume(trainer_of, render, find) -> None:
    trainer = trainer_of("default-values.yaml")
    assert trainer["replicas"] == 1
    assert trainer["strategy"] == {"type": "Recreate"}
    claim = find(render("default-values.yaml"), "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    work = trainer["template"]["spec"]["volumes"][0]
    assert work == {"name": "work", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}


def test_postgresql_lets_trainers_be_many(trainer_of, render) -> None:
    trainer = trainer_of("gpu-values.yaml")
    assert trainer["replicas"] == 2
    assert trainer["strategy"]["type"] == "RollingUpdate"
    assert "emptyDir" in trainer["template"]["spec"]["volumes"][0]
    assert not [manifest for manifest in render("gpu-values.yaml") if manifest["kind"] == "PersistentVolumeClaim"]


def test_postgresql_password_and_url_fit_its_service(render, find) -> None:
    manifests = render("gpu-values.yaml")
    (trainer,) = find(manifests, "Deployment", "-trainer")["spec"]["template"]["spec"]["containers"]
    (server,) = find(manifests, "StatefulSet", "-postgresql")["spec"]["template"]["spec"]["containers"]
    trainers = {variable["name"]: variable for variable in trainer["env"]}
    servers = {variable["name"]: variable for variable in server["env"]}
    assert trainers["PGPASSWORD"]["valueFrom"] == servers["POSTGRES_PASSWORD"]["valueFrom"]
    user, database = servers["POSTGRES_USER"]["value"], servers["POSTGRES_DB"]["value"]
    host = find(manifests, "Service", "-postgresql")["metadata"]["name"]
    assert trainers["DETEX_DATABASE_URL"]["value"] == f"postgresql+psycopg://{user}@{host}:5432/{database}"


@pytest.mark.parametrize("component", ["trainer", "generator", "minio", "postgresql"])
def test_a_digest_wins_over_the_tag(render, component: str) -> None:
    digest = "sha256:" + "0f" * 32
    values = {f"{component}.image.repository": '"registry.example.com:5000/x"', f"{component}.image.tag": '"1"'}
    for given, wanted in (("", "registry.example.com:5000/x:1"), (digest, f"registry.example.com:5000/x@{digest}")):
        manifests = render("gpu-values.yaml", **values, **{f"{component}.image.digest": f'"{given}"'})
        images = {container["image"] for _, pod in pod_specs(manifests) for container in pod["containers"]}
        assert wanted in images


def test_images_carry_the_version_of_the_chart(render, chart: Path) -> None:
    version = yaml.safe_load((chart / "Chart.yaml").read_text())["appVersion"]
    images = [container["image"] for _, pod in pod_specs(render()) for container in pod["containers"]]
    assert {f"detex-trainer:{version}", f"detex-generator:{version}"} <= set(images)


def test_gpus_are_asked_for(render, find) -> None:
    for component in ("trainer", "generator"):
        pod = find(render("gpu-values.yaml"), "Deployment", f"-{component}")["spec"]["template"]["spec"]
        assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
        assert pod["runtimeClassName"] == "nvidia"
        assert pod["tolerations"][0]["key"] == "nvidia.com/gpu"
        assert {"name": "base-models", "mountPath": "/models", "readOnly": True} in pod["containers"][0]["volumeMounts"]


def test_autoscaler_owns_the_number_of_generators(render, find) -> None:
    manifests = render("production-values.yaml")
    scaler = find(manifests, "HorizontalPodAutoscaler")["spec"]
    generator = find(manifests, "Deployment", "-generator")
    assert "replicas" not in generator["spec"]
    assert scaler["scaleTargetRef"]["name"] == generator["metadata"]["name"]
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 24)
    assert [metric["type"] for metric in scaler["metrics"]] == ["Resource", "Pods"]


def test_scaling_metric_exists(render, find) -> None:
    from prometheus_client import CollectorRegistry

    from detex_generator.metrics import GeneratorMetrics

    registry = CollectorRegistry()
    GeneratorMetrics(registry)
    name = find(render("production-values.yaml"), "HorizontalPodAutoscaler")["spec"]["metrics"][1]["pods"]["metric"][
        "name"
    ]
    assert name in {family.name for family in registry.collect()}


def test_monitor_finds_the_metrics(render) -> None:
    manifests = render("production-values.yaml")
    monitors = [manifest for manifest in manifests if manifest["kind"] == "ServiceMonitor"]
    assert len(monitors) == 2
    for monitor in monitors:
        assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
        assert monitor["metadata"]["labels"]["release"] == "prometheus"
        assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["pictures"]}
        (endpoint,) = monitor["spec"]["endpoints"]
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        (service,) = (
            manifest
            for manifest in manifests
            if manifest["kind"] == "Service"
            and wanted <= manifest["metadata"]["labels"].items()
            and endpoint["port"] in {port["name"] for port in manifest["spec"]["ports"]}
        )
        assert service["metadata"]["name"].endswith("-metrics")


def test_annotations_point_to_the_metrics(render, find) -> None:
    manifests = render(**{"metrics.port": "9999"})
    for component in ("trainer", "generator"):
        template = find(manifests, "Deployment", f"-{component}")["spec"]["template"]
        assert template["metadata"]["annotations"]["prometheus.io/port"] == "9999"
        ports = {port["name"]: port["containerPort"] for port in template["spec"]["containers"][0]["ports"]}
        assert ports["metrics"] == 9999
        assert find(manifests, "ConfigMap", f"-{component}")["data"]["DETEX_METRICS_ADDRESS"] == "0.0.0.0:9999"


def test_network_policies_admit_who_is_named(render, find) -> None:
    manifests = render("production-values.yaml")
    for component in ("trainer", "generator"):
        calls, scrapes = find(manifests, "NetworkPolicy", f"-{component}")["spec"]["ingress"]
        assert [port["port"] for port in calls["ports"]] == ["grpc"]
        assert calls["from"][0]["podSelector"] == {"matchLabels": {"app": "web"}}
        assert calls["from"][1] == {"ipBlock": {"cidr": "10.0.0.0/8"}}
        runs = calls["from"][2]["podSelector"]["matchLabels"]
        template = find(manifests, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]
        assert runs.items() <= template["metadata"]["labels"].items()
        assert [port["port"] for port in scrapes["ports"]] == ["metrics"]
        assert len(scrapes["from"]) == 1


def test_network_policies_close_the_chart_s_own_servers(render, find) -> None:
    manifests = render("gpu-values.yaml", **{"networkPolicy.enabled": "true"})
    for component, callers in (("minio", ["trainer", "worker", "generator"]), ("postgresql", ["trainer"])):
        (rule,) = find(manifests, "NetworkPolicy", f"-{component}")["spec"]["ingress"]
        peers = [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in rule["from"]]
        assert peers == callers
    own = find(manifests, "NetworkPolicy", "-trainer")["spec"]["ingress"]
    assert own[0]["from"] == [{"podSelector": {}}]
    assert "from" not in own[1]


def test_changed_settings_restart_pods(render, find) -> None:
    def checksum(**values: str) -> str:
        template = find(render(**values), "Deployment", "-generator")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/settings"])

    assert checksum() == checksum(**{"trainer.replicas": "0"})
    assert checksum() != checksum(**{"settings.logLevel": '"DEBUG"'})
    assert checksum() != checksum(**{"generator.settings.slots": "4"})


def test_notes_name_the_secrets_to_make(helm, chart: Path) -> None:
    done = helm("install", "shop", str(chart), "--dry-run=client", "--values", str(chart / "ci" / "gpu-values.yaml"))
    assert done.returncode == 0, done.stderr
    notes = done.stdout.partition("NOTES:")[2]
    assert "detex-object-store with access-key and secret-key" in notes
    assert "detex-postgresql with password" in notes
    assert "port-forward service/shop-detex-trainer" in notes
