"""Dashboards in the chart are those of the script, and reach Grafana's sidecar where asked."""

import json
from pathlib import Path

import pytest

from scripts.generate_dashboards import DASHBOARDS, Dashboard, rendered


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.name)
def test_files_are_up_to_date(chart: Path, dashboard: Dashboard) -> None:
    assert (chart / "dashboards" / f"{dashboard.name}.json").read_text() == rendered(dashboard)


def test_chart_mounts_them_where_asked(render, chart: Path) -> None:
    assert not [one for one in render() if "-dashboard-" in one["metadata"]["name"]]
    made = {
        name: text
        for one in render(**{"metrics.dashboards.enabled": "true"})
        if one["metadata"]["labels"].get("grafana_dashboard") == "1"
        for name, text in one["data"].items()
    }
    assert {name: json.loads(text)["title"] for name, text in made.items()} == {
        f"detex-{one.name}.json": one.title for one in DASHBOARDS
    }
    assert {path.stem for path in (chart / "dashboards").glob("*.json")} == {one.name for one in DASHBOARDS}
