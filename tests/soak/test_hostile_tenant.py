"""Honest tenants beside a hostile one, on real services: what must hold however fast the machine is."""

from pathlib import Path

import pytest

from benchmarks.soak.rows import rows_of
from benchmarks.soak.tenants import HONEST, measure
from tests.tiny_models import write_tiny_model

pytestmark = pytest.mark.slow

# None of them asks for more than its share of places, so that no honest caller is ever told to come back.
KINDS = ("forged-ids", "racing-masks", "deletions-in-use", "damaged-concepts", "missing-concepts")


@pytest.mark.timeout(1_200)
def test_honest_tenants_lose_nothing_and_get_no_errors_of_others(tmp_path: Path) -> None:
    base_model = write_tiny_model(tmp_path / "tiny")
    folder = tmp_path / "services"
    folder.mkdir()
    findings = measure(folder, seconds=8, kinds=KINDS, repeats=1, seed=3, base_model=str(base_model))
    for name in HONEST:
        found = findings.verifications[name]
        assert found.lost == {}
        assert set(found.looked_at) == {"training sets", "photos", "masks", "jobs", "lists of jobs", "concepts"}
    assert findings.ended_services == []
    assert [phase.experience.failures for phase in (*findings.without, *findings.beside)] == [[], []]
    assert findings.images > 0
    assert set(findings.attacks) == set(KINDS)
    rows = rows_of(findings)
    assert {"errors given to honest tenants beside the hostile tenant"} <= {row.what for row in rows}
