"""The alerts of the chart, as Prometheus evaluates them: each fires on its fault, and clears when that is over."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

G, T = "detex_generator_", "detex_trainer_"
RULES = Path("alerts") / "detex.rules.yaml"


@dataclass(frozen=True)
class Fault:
    """What is scraped each minute: well for an hour, then ill for `ill_minutes`, then well again.

    Attributes:
        well: Step per minute (counters) or value (gauges) of each series while all is well.
        ill: The same amid the fault; None for a series that is not there then.
        fires_after: Minutes into the fault at which it fires.
        clears_after: Minutes after the fault at which it does no more.
        labels: Of the alert beside its severity.
    """

    well: dict[str, float]
    ill: dict[str, float | None]
    fires_after: int
    clears_after: int
    labels: dict[str, str]


_POD = {"instance": "a"}
_QUEUED, _RUNNING = (f'{T}jobs{{state="{state}",method="detex",instance="a"}}' for state in ("queued", "running"))
_OK, _BAD, _FULL = (f'{G}requests_total{{outcome="{code}"}}' for code in ("OK", "INTERNAL", "RESOURCE_EXHAUSTED"))
_QUICK, _ALL = (
    f'{G}queue_wait_seconds_bucket{{priority="normal",le="5.0"}}',
    (f'{G}queue_wait_seconds_count{{priority="normal"}}'),
)
_SLOTS, _USED, _WAITING = f"{G}slots", f"{G}slots_in_use", f"{G}waiting_images"
_STUCK, _STEPS = f'{G}slots_in_use{{instance="a"}}', f'{G}image_steps_total{{instance="a"}}'
_EVICTIONS, _HITS, _MISSES = (
    f'{G}concept_cache_{what}_total{{level="host",instance="a"}}' for what in ("evictions", "hits", "misses")
)
_MEMORY = f'{G}out_of_memory_total{{stage="denoise",instance="a"}}'
_STORE = f'{T}dependency_up{{dependency="object_store",instance="a"}}'
_DATABASE = f'{T}dependency_up{{dependency="database",instance="a"}}'
_READY = 'detex_ready{grpc_service="detex.v1.TrainerService",instance="a"}'
_WORKERS, _TRAINED = f'{T}workers{{instance="a"}}', f'{T}steps_total{{method="detex"}}'
_AGE, _FAILED, _SUCCEEDED = (
    f'{T}checkpoint_age_seconds{{instance="a"}}',
    f'{T}jobs_ended_total{{method="detex",state="failed"}}',
    f'{T}jobs_ended_total{{method="detex",state="succeeded"}}',
)
_DIED, _TURNS = (f'{T}jobs_requeued_total{{cause="{cause}"}}' for cause in ("worker_died", "turn_over"))
_OLDEST = f'{T}oldest_job_seconds{{state="queued",instance="a"}}'

FAULTS = {
    "DetexGeneratorErrorBudgetFast": Fault({_OK: 60, _BAD: 0}, {_OK: 30, _BAD: 30}, 20, 10, {}),
    "DetexGeneratorErrorBudgetSlow": Fault({_OK: 60, _BAD: 0}, {_OK: 54, _BAD: 6}, 150, 40, {}),
    "DetexGeneratorQueueSlow": Fault({_QUICK: 60, _ALL: 60}, {_QUICK: 30, _ALL: 60}, 15, 20, {}),
    "DetexGeneratorSaturated": Fault({_SLOTS: 8, _USED: 8, _WAITING: 0}, {_SLOTS: 8, _USED: 8, _WAITING: 3}, 17, 2, {}),
    "DetexGeneratorStuck": Fault({_STUCK: 4, _STEPS: 90}, {_STUCK: 4, _STEPS: 0}, 15, 7, _POD),
    "DetexGeneratorRefusals": Fault({_OK: 60, _FULL: 0}, {_OK: 50, _FULL: 10}, 12, 12, {}),
    "DetexConceptCacheThrashing": Fault(
        {_EVICTIONS: 1, _HITS: 50, _MISSES: 1},
        {_EVICTIONS: 40, _HITS: 10, _MISSES: 40},
        40,
        20,
        {"level": "host", **_POD},
    ),
    "DetexGeneratorOutOfMemory": Fault({_MEMORY: 0}, {_MEMORY: 1}, 3, 20, _POD),
    "DetexObjectStoreDown": Fault({_STORE: 1}, {_STORE: 0}, 4, 1, {"dependency": "object_store", **_POD}),
    "DetexJobTableDown": Fault({_DATABASE: 1}, {_DATABASE: 0}, 4, 1, {"dependency": "database", **_POD}),
    "DetexTrainerJobsUnknown": Fault({_WORKERS: 1, _QUEUED: 0}, {_WORKERS: 1, _QUEUED: None}, 15, 2, _POD),
    "DetexServiceNotReady": Fault({_READY: 1}, {_READY: 0}, 17, 1, {"grpc_service": "detex.v1.TrainerService", **_POD}),
    "DetexJobsWithoutWorker": Fault({_QUEUED: 3, _WORKERS: 1}, {_QUEUED: 3, _WORKERS: 0}, 12, 1, {}),
    "DetexJobsStalled": Fault({_RUNNING: 1, _TRAINED: 200}, {_RUNNING: 1, _TRAINED: 0}, 35, 5, {}),
    "DetexCheckpointOld": Fault({_AGE: 60}, {_AGE: 900}, 7, 1, _POD),
    "DetexJobsFailing": Fault({_SUCCEEDED: 2, _FAILED: 0}, {_SUCCEEDED: 1, _FAILED: 1}, 30, 70, {}),
    "DetexJobsRequeued": Fault({_DIED: 0, _TURNS: 5}, {_DIED: 1, _TURNS: 5}, 15, 70, {}),
    "DetexJobQueuedLong": Fault({_OLDEST: 60}, {_OLDEST: 20_000}, 12, 1, {}),
}
_WELL_MINUTES = 60


@pytest.fixture(scope="module")
def rules(chart: Path) -> dict[str, dict[str, Any]]:
    """By name."""
    groups = yaml.safe_load((chart / RULES).read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def promtool(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    program = root / ".tools" / "bin" / "promtool"
    assert program.exists(), "no promtool; run `make tools`"
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=60)


def samples(name: str, fault: Fault, ill_minutes: int) -> str:
    """In promtool's notation: runs of values, counters as sums from 0."""
    well, ill = fault.well[name], fault.ill[name]
    is_counter = re.search(r"_(total|bucket|count)\b", name) is not None
    runs, total = [], 0.0
    for value, minutes in ((well, _WELL_MINUTES), (ill, ill_minutes), (well, fault.clears_after + 5)):
        if value is None:
            runs.append(f"_x{minutes}")
        elif is_counter:
            runs.append(f"{total:g}+{value:g}x{minutes - 1}")
            total += value * minutes
        else:
            runs.append(f"{value:g}x{minutes - 1}")
    return " ".join(runs)


@pytest.mark.parametrize("name", FAULTS)
def test_alert_fires_and_clears(
    root: Path, chart: Path, tmp_path: Path, rules: dict[str, dict[str, Any]], name: str
) -> None:
    fault, rule = FAULTS[name], rules[name]
    told = {
        "exp_labels": {"severity": rule["labels"]["severity"], **fault.labels},
        "exp_annotations": rule["annotations"],
    }
    end = _WELL_MINUTES + fault.fires_after + 1
    moments: list[tuple[int, list[Any]]] = [
        (_WELL_MINUTES - 1, []),
        (_WELL_MINUTES + fault.fires_after, [told]),
        (end + fault.clears_after, []),
    ]
    case = {
        "rule_files": [str(chart / RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": series, "values": samples(series, fault, fault.fires_after + 1)} for series in fault.well
                ],
                "alert_rule_test": [
                    {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": alerts} for minute, alerts in moments
                ],
            }
        ],
    }
    path = tmp_path / "case.yaml"
    path.write_text(yaml.safe_dump(case))
    done = promtool(root, "test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_clean(root: Path, chart: Path) -> None:
    done = promtool(root, "check", "rules", "--lint=all", "--lint-fatal", str(chart / RULES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried_and_has_a_runbook(root: Path, rules: dict[str, dict[str, Any]]) -> None:
    assert set(FAULTS) == set(rules)
    for name, rule in rules.items():
        page = root / rule["annotations"]["runbook_url"]
        assert page.name == f"{name}.md"
        text = page.read_text()
        assert text.startswith(f"# {name}\n")
        assert rule["annotations"]["summary"] in text
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Meaning", "Checks", "Actions"]
    assert {path.stem for path in (root / "docs" / "runbooks").glob("*.md")} == set(rules)


def test_chart_makes_the_same_of_them_where_asked(render, find, chart: Path) -> None:
    assert not [one for one in render() if one["kind"] == "PrometheusRule"]
    values = {"metrics.prometheusRule.enabled": "true", "metrics.prometheusRule.labels": '{"release": "prometheus"}'}
    rule = find(render(**values), "PrometheusRule")
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    assert rule["spec"] == yaml.safe_load((chart / RULES).read_text())
