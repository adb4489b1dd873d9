"""What was measured beside a hostile tenant, as rows of a result file."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from benchmarks.results_file import ResultRow, at_least, at_most
from benchmarks.soak.honest.load import CALLS_PER_SECOND, SUBMIT
from benchmarks.soak.tenants import Findings, Phase
from benchmarks.soak.watch import PROBE_SECONDS

LARGEST_RATIO = 2.0
_ALL = "all calls"
_PERCENTILES = (50, 95, 99)
_NOTE_LENGTH = 1_000


def rows_of(findings: Findings) -> list[ResultRow]:
    """All rows. `peer` is the same without the hostile tenant, `runs` are the phases beside it."""
    return [
        *_promises(findings),
        *_failures(findings),
        *_ratios(findings),
        *_latencies(findings),
        *_liveness(findings),
        *_memory(findings),
        *_attacks(findings),
        ResultRow(what="pictures that honest tenants received", value=findings.images, reach=at_least(1)),
        ResultRow(what="time of all", value=findings.seconds, unit="s"),
    ]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that so many per cent of them do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _promises(findings: Findings) -> Iterable[ResultRow]:
    sorts = sorted({sort for found in findings.verifications.values() for sort in found.looked_at})
    for sort in sorts:
        looked_at = sum(found.looked_at.get(sort, 0) for found in findings.verifications.values())
        lost = [text for found in findings.verifications.values() for text in found.lost.get(sort, [])]
        note = f"of {looked_at}. {_summary(lost)}".strip()
        yield ResultRow(what=f"lost or changed {sort}", value=len(lost), reach=at_most(0), note=note)
    ended = findings.ended_services
    yield ResultRow(what="services that ended", value=len(ended), reach=at_most(0), note=", ".join(ended))


def _failures(findings: Findings) -> Iterable[ResultRow]:
    for name, phases in (("beside the hostile tenant", findings.beside), ("without it", findings.without)):
        failures = [text for phase in phases for text in phase.experience.failures]
        calls = sum(len(times) for phase in phases for times in phase.experience.seconds.values()) + len(failures)
        yield ResultRow(
            what=f"errors given to honest tenants {name}",
            value=len(failures),
            reach=at_most(0),
            runs=tuple(len(phase.experience.failures) for phase in phases),
            note=f"of {calls} calls. {_summary(failures)}".strip(),
        )


def _ratios(findings: Findings) -> Iterable[ResultRow]:
    for kind in _kinds():
        beside, without = _seconds(findings.beside, kind), _seconds(findings.without, kind)
        what = f"{kind}: 95th percentile beside the hostile tenant, against that without it"
        if not beside or not without:
            yield ResultRow(what=what, value=None, reach=at_most(LARGEST_RATIO), note="no call ended well")
            continue
        pairs = zip(_by_phase(findings.beside, kind), _by_phase(findings.without, kind), strict=False)
        yield ResultRow(
            what=what,
            value=percentile(beside, 95) / percentile(without, 95),
            reach=at_most(LARGEST_RATIO),
            runs=tuple(percentile(one, 95) / percentile(other, 95) for one, other in pairs if one and other),
            note=f"{len(beside)} calls beside it, {len(without)} without",
        )


def _latencies(findings: Findings) -> Iterable[ResultRow]:
    for kind in _kinds():
        beside, without = _seconds(findings.beside, kind), _seconds(findings.without, kind)
        for percent in _PERCENTILES:
            yield ResultRow(
                what=f"{kind}: {percent}th percentile of latency",
                value=percentile(beside, percent) if beside else None,
                unit="s",
                runs=tuple(percentile(each, percent) for each in _by_phase(findings.beside, kind) if each),
                peer=percentile(without, percent) if without else None,
            )


def _liveness(findings: Findings) -> Iterable[ResultRow]:
    probes = sorted({probe for phase in findings.beside for probe in phase.observation.probe_seconds})
    for probe in probes:
        missed = [text for phase in findings.beside for text in phase.observation.missed.get(probe, [])]
        times = [phase.observation.probe_seconds.get(probe, []) for phase in findings.beside]
        peers = [phase.observation.probe_seconds.get(probe, []) for phase in findings.without]
        yield ResultRow(
            what=f"{probe}: probes without a good answer within {PROBE_SECONDS:g} s",
            value=len(missed),
            reach=at_most(0),
            peer=sum(len(phase.observation.missed.get(probe, [])) for phase in findings.without),
            note=f"of {sum(map(len, times))}. {_summary(missed)}".strip(),
        )
        yield ResultRow(
            what=f"{probe}: longest wait for an answer",
            value=max((max(each) for each in times if each), default=None),
            unit="s",
            runs=tuple(max(each) for each in times if each),
            peer=max((max(each) for each in peers if each), default=None),
        )


def _memory(findings: Findings) -> Iterable[ResultRow]:
    for process in sorted({name for phase in findings.beside for name in phase.observation.peak_mebibytes}):
        runs = [phase.observation.peak_mebibytes.get(process, 0.0) for phase in findings.beside]
        peers = [phase.observation.peak_mebibytes.get(process, 0.0) for phase in findings.without]
        if not any((*runs, *peers)):
            continue  # no worker ran
        yield ResultRow(
            what=f"{process}: largest resident memory",
            value=max(runs),
            unit="MiB",
            runs=tuple(runs),
            peer=max(peers, default=None),
            note=f"without the hostile tenant {', '.join(f'{peer:.0f}' for peer in peers)}, phase by phase",
        )


def _attacks(findings: Findings) -> Iterable[ResultRow]:
    for kind, ended in findings.attacks.items():
        yield ResultRow(
            what=f"hostile calls: {kind}",
            value=sum(ended.values()),
            note=", ".join(f"{status} {number}" for status, number in sorted(ended.items())),
        )


def _kinds() -> list[str]:
    return [_ALL, *CALLS_PER_SECOND, SUBMIT]


def _seconds(phases: Iterable[Phase], kind: str) -> list[float]:
    return [seconds for each in _by_phase(phases, kind) for seconds in each]


def _by_phase(phases: Iterable[Phase], kind: str) -> list[list[float]]:
    if kind == _ALL:
        return [[seconds for times in phase.experience.seconds.values() for seconds in times] for phase in phases]
    return [phase.experience.seconds.get(kind, []) for phase in phases]


def _summary(texts: Sequence[str]) -> str:
    """The texts, each once with how often it came, the most frequent first."""
    counted = Counter(texts).most_common()
    return "; ".join(f"{number} x {text}" for text, number in counted)[:_NOTE_LENGTH]
