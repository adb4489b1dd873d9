"""Workers as Jobs: what the chart tells the trainer, and what the trainer's account may do."""

import json

import kubernetes_validate

from detex_trainer.executors.kubernetes_settings import KubernetesSettings

ENABLED = {"trainer.workerJobs.enabled": "true"}


def test_the_trainer_keeps_to_itself_by_default(render, find) -> None:
    manifests = render()
    assert not [each for each in manifests if each["kind"] in {"Role", "RoleBinding"}]
    assert "DETEX_KUBERNETES" not in find(manifests, "ConfigMap", "-trainer")["data"]


def test_the_trainer_is_told_what_workers_look_like(render, find) -> None:
    values = {
        "trainer.workerJobs.gpu.count": "1",
        "trainer.workerJobs.queueName": json.dumps("team-a"),
        "trainer.workerJobs.tolerations": json.dumps([{"key": "nvidia.com/gpu", "operator": "Exists"}]),
        "trainer.workerJobs.nodeSelector": json.dumps({"gpu": "a100"}),
        "baseModelVolume.existingClaim": json.dumps("models"),
        "imagePullSecrets": json.dumps([{"name": "registry"}]),
    }
    manifests = render(**ENABLED, **values)
    data = find(manifests, "ConfigMap", "-trainer")["data"]
    assert data["DETEX_EXECUTOR"] == "kubernetes"
    settings = KubernetesSettings.model_validate_json(data["DETEX_KUBERNETES"])
    (container,) = find(manifests, "Deployment", "-trainer")["spec"]["template"]["spec"]["containers"]
    assert settings.image == container["image"]
    assert (settings.gpu_count, settings.queue_name, settings.node_selector) == (1, "team-a", {"gpu": "a100"})
    assert settings.tolerations == ({"key": "nvidia.com/gpu", "operator": "Exists"},)
    assert [each.claim for each in settings.claims] == ["models"]
    assert settings.image_pull_secrets == ("registry",)
    assert {each.name for each in settings.environment_secrets} == {"DETEX_S3_ACCESS_KEY", "DETEX_S3_SECRET_KEY"}
    assert settings.labels["app.kubernetes.io/component"] == "worker"
    generator = find(manifests, "ConfigMap", "-generator")["data"]
    assert "DETEX_KUBERNETES" not in generator


def test_the_account_may_do_what_the_executor_does_and_no_more(render, find) -> None:
    manifests = render(**ENABLED)
    for manifest in manifests:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
    rules = find(manifests, "Role", "-trainer")["rules"]
    assert {(rule["resources"][0], tuple(rule["verbs"])) for rule in rules} == {
        ("jobs", ("create", "get", "patch", "delete")),
        ("pods", ("list", "delete")),
        ("pods/log", ("get",)),
    }
    binding = find(manifests, "RoleBinding", "-trainer")
    pod = find(manifests, "Deployment", "-trainer")["spec"]["template"]["spec"]
    assert binding["subjects"][0]["name"] == pod["serviceAccountName"]
    assert pod["automountServiceAccountToken"] is True
    assert (
        find(manifests, "Deployment", "-generator")["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    )
