"""Writes the dashboards for Grafana into the chart: `python scripts/generate_dashboards.py`.

Panels are rows of queries here; the JSON model of dashboards is Grafana's (schema version 39).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "helm" / "detex" / "dashboards"
_SOURCE = {"type": "prometheus", "uid": "${source}"}
_WIDTH, _HEIGHT, _PANELS_PER_ROW = 8, 8, 3


@dataclass(frozen=True)
class Query:
    """A query in PromQL and the name of its lines, with labels in double braces."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """Lines over time; the unit is one of Grafana's, for example `s`, `ops` or `percentunit`."""

    title: str
    unit: str
    queries: tuple[Query, ...]


@dataclass(frozen=True)
class Dashboard:
    """Panels in rows of three."""

    name: str
    title: str
    panels: tuple[Panel, ...]


def _panel(title: str, unit: str, *queries: tuple[str, str]) -> Panel:
    return Panel(title, unit, tuple(Query(*query) for query in queries))


def _quantile(title: str, metric: str, *labels: str, quantile: float = 0.95) -> Panel:
    by = ", ".join(("le", *labels))
    legend = " ".join("{{" + label + "}}" for label in labels) or f"p{quantile * 100:g}"
    return _panel(title, "s", (f"histogram_quantile({quantile}, sum by ({by}) (rate({metric}_bucket[5m])))", legend))


_GENERATOR = Dashboard(
    "generator",
    "detex generator",
    (
        _panel("Requests", "reqps", ("sum by (outcome) (rate(detex_generator_requests_total[5m]))", "{{outcome}}")),
        _quantile("Time of requests, p95", "detex_generator_request_seconds"),
        _quantile("Wait for a slot, p95", "detex_generator_queue_wait_seconds", "priority"),
        _quantile("Stages, p95", "detex_generator_stage_seconds", "stage"),
        _panel("Steps", "ops", ("sum(rate(detex_generator_image_steps_total[5m]))", "steps")),
        _panel(
            "Rows of a pass, mean",
            "short",
            ("sum(rate(detex_generator_batch_rows_sum[5m])) / sum(rate(detex_generator_batch_rows_count[5m]))", "rows"),
        ),
        _panel(
            "Concepts found in memory",
            "percentunit",
            (
                "sum by (level) (rate(detex_generator_concept_cache_hits_total[5m])) / (sum by (level) "
                "(rate(detex_generator_concept_cache_hits_total[5m])) + sum by (level) "
                "(rate(detex_generator_concept_cache_misses_total[5m])))",
                "{{level}}",
            ),
        ),
        _panel(
            "Concepts evicted",
            "ops",
            ("sum by (level) (rate(detex_generator_concept_cache_evictions_total[5m]))", "{{level}}"),
        ),
        _quantile("Time to load a concept, p95", "detex_generator_concept_cache_load_seconds", "level"),
        _panel(
            "Refused and failed",
            "ops",
            ("sum by (reason) (rate(detex_generator_refused_requests_total[5m]))", "refused: {{reason}}"),
            ("sum by (reason) (rate(detex_generator_failed_images_total[5m]))", "failed: {{reason}}"),
        ),
        _panel("Object store answers", "bool", ("detex_generator_object_store_up", "{{instance}}")),
        _panel(
            "Out of memory",
            "short",
            ("sum by (stage) (increase(detex_generator_out_of_memory_total[1h]))", "{{stage}}"),
        ),
    ),
)
_TRAINER = Dashboard(
    "trainer",
    "detex trainer",
    (
        _panel("Jobs", "short", ("sum by (state) (max by (state, method) (detex_trainer_jobs))", "{{state}}")),
        _panel("Oldest job", "s", ("max by (state) (detex_trainer_oldest_job_seconds)", "{{state}}")),
        _panel("Workers", "short", ("sum(detex_trainer_workers)", "workers")),
        _panel("Steps", "ops", ("sum by (method) (rate(detex_trainer_steps_total[5m]))", "{{method}}")),
        _quantile("Phases, p95", "detex_trainer_phase_seconds", "phase"),
        _quantile("Wait for a worker, p95", "detex_trainer_queue_wait_seconds", "method"),
        _panel("Jobs ended", "short", ("sum by (state) (increase(detex_trainer_jobs_ended_total[1h]))", "{{state}}")),
        _panel("Failures", "short", ("sum by (reason) (increase(detex_trainer_job_failures_total[1h]))", "{{reason}}")),
        _panel("Requeues", "short", ("sum by (cause) (increase(detex_trainer_jobs_requeued_total[1h]))", "{{cause}}")),
        _panel("Age of the oldest checkpoint", "s", ("max(detex_trainer_checkpoint_age_seconds)", "age")),
        _panel("Dependencies answer", "bool", ("min by (dependency) (detex_trainer_dependency_up)", "{{dependency}}")),
        _quantile("Answers of dependencies, p95", "detex_trainer_dependency_seconds", "dependency"),
    ),
)
_CAPACITY = Dashboard(
    "capacity",
    "detex capacity",
    (
        _panel(
            "Slots in use",
            "percentunit",
            ("sum(detex_generator_slots_in_use) / sum(detex_generator_slots)", "of all slots"),
        ),
        _panel("Images that wait", "short", ("sum(detex_generator_waiting_images)", "images")),
        _panel("Pictures", "ops", ("sum by (base_model) (rate(detex_generator_images_total[5m]))", "{{base_model}}")),
        _panel("Cache of concepts", "bytes", ("sum by (level) (detex_generator_concept_cache_bytes)", "{{level}}")),
        _panel("Ready", "short", ("sum by (grpc_service) (detex_ready)", "{{grpc_service}}")),
        _panel("Calls that run", "short", ("sum by (grpc_service) (grpc_server_running_calls)", "{{grpc_service}}")),
        _panel(
            "Memory of processes",
            "bytes",
            ("process_resident_memory_bytes and on (instance) detex_build_info", "{{instance}}"),
        ),
        _panel(
            "CPU of processes",
            "short",
            ("rate(process_cpu_seconds_total[5m]) and on (instance) detex_build_info", "{{instance}}"),
        ),
        _quantile("Calls, p95", "grpc_server_handling_seconds", "grpc_service"),
    ),
)
DASHBOARDS = (_GENERATOR, _TRAINER, _CAPACITY)


def rendered(dashboard: Dashboard) -> str:
    """The file that Grafana reads."""
    model = {
        "uid": f"detex-{dashboard.name}",
        "title": dashboard.title,
        "tags": ["detex"],
        "schemaVersion": 39,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "panels": [_model(number, panel) for number, panel in enumerate(dashboard.panels)],
    }
    return json.dumps(model, indent=1) + "\n"


def _model(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, _PANELS_PER_ROW)
    return {
        "id": number + 1,
        "title": panel.title,
        "type": "timeseries",
        "datasource": _SOURCE,
        "gridPos": {"x": column * _WIDTH, "y": row * _HEIGHT, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "expr": query.expression, "legendFormat": query.legend}
            for index, query in enumerate(panel.queries)
        ],
    }


def write(dashboards: Sequence[Dashboard] = DASHBOARDS) -> None:
    """Write all of them."""
    FOLDER.mkdir(exist_ok=True)
    for dashboard in dashboards:
        (FOLDER / f"{dashboard.name}.json").write_text(rendered(dashboard))


if __name__ == "__main__":
    write()
