"""Results of a benchmark as a JSON file: what was measured, on which machine, with which versions.

Every benchmark writes one file per machine, `benchmarks/results/<benchmark>/<machine>.json`, by `write_results`:

    {"benchmark": "serving", "command": "python -m benchmarks.serving", "date": "2026-01-31T12:00:00Z",
     "machine": {...}, "versions": {...}, "embedded_base_model": {"pixels": 128}, "settings": {...},
     "rows": [{"what": ..., "value": ..., "unit": ..., "reach": ">= 0.97", "met": true, "runs": [...], "peer": null,
               "note": ""}]}

A value that was not reached stands there as it was measured. `embedded_base_model` is the one that shipped at the time,
which most benchmarks run on; where another ships by now it also says `"former": true`.
"""

import json
import math
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, computed_field, field_validator

from detex_showroom import base_model_path

RESULTS_FOLDER = Path(__file__).parent / "results"
_PACKAGES = ("detex", "torch", "diffusers", "transformers", "numpy", "grpcio", "triton")


class Reach(BaseModel):
    """What a value is meant to reach.

    Attributes:
        at_least: Smallest value that is good enough, or None.
        at_most: Largest value that is good enough, or None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_least: float | None = None
    at_most: float | None = None

    def met_by(self, value: float) -> bool:
        """Whether a value is good enough; one that is not a number never is."""
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        return low <= value <= high

    def __str__(self) -> str:
        bounds = ((">=", self.at_least), ("<=", self.at_most))
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds if bound is not None)


class ResultRow(BaseModel):
    """One measured value.

    Attributes:
        what: What was measured, in words.
        value: The value, usually the median of `runs`; None where it could not be measured, and `note` says why.
        unit: Its unit, for example `images/s`, `s`, `dB`; empty for a ratio.
        reach: What it is meant to reach; None for a value that is only reported.
        runs: The values of the single runs, in the order in which they were taken.
        peer: The same value of the peer, or None where there is none.
        note: What a reader must know to read the value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: str
    value: float | None
    unit: str = ""
    reach: Reach | None = None
    runs: tuple[float, ...] = ()
    peer: float | None = None
    note: str = ""

    @field_validator("value", "peer")
    @classmethod
    def _check_finite(cls, value: float | None) -> float | None:
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{value} is no measurement; leave it None and say why in the note")
        return value

    @computed_field  # type: ignore[prop-decorator]
    @property
    def met(self) -> bool | None:
        """Whether it reaches what it is meant to; None where nothing is asked, false where it could not be measured."""
        if self.reach is None:
            return None
        return self.value is not None and self.reach.met_by(self.value)

    def as_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return {
            "what": self.what,
            "value": self.value,
            "unit": self.unit,
            "reach": None if self.reach is None else str(self.reach),
            "met": self.met,
            "runs": list(self.runs),
            "peer": self.peer,
            "note": self.note,
        }


def at_least(bound: float) -> Reach:
    """The reach of a value that should be this or more."""
    return Reach(at_least=bound)


def at_most(bound: float) -> Reach:
    """The reach of a value that should be this or less."""
    return Reach(at_most=bound)


def median_row(
    what: str,
    runs: Sequence[float],
    unit: str = "",
    *,
    reach: Reach | None = None,
    peer_runs: Sequence[float] = (),
    note: str = "",
) -> ResultRow:
    """A row whose value is the median of runs, and whose peer is the median of the peer's."""
    return ResultRow(
        what=what,
        value=statistics.median(runs),
        unit=unit,
        reach=reach,
        runs=tuple(runs),
        peer=statistics.median(peer_runs) if peer_runs else None,
        note=note,
    )


class Machine(BaseModel):
    """What a benchmark ran on.

    Attributes:
        name: Short name for file names, for example `amd-epyc-2-cores` or `nvidia-h100-80gb-hbm3`.
        cpu: Name of the processor.
        cores: Cores that this process may use.
        memory_bytes: Main memory.
        system: Kernel and its version.
        accelerator: Name of the GPU, or None.
        accelerator_memory_bytes: Its memory, or None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    cpu: str
    cores: int = Field(ge=1)
    memory_bytes: int
    system: str
    accelerator: str | None = None
    accelerator_memory_bytes: int | None = None


def this_machine() -> Machine:
    """The machine that this process runs on."""
    cpu, cores = _cpu_name(), len(os.sched_getaffinity(0))
    accelerator, accelerator_memory_bytes = _accelerator()
    name = accelerator or f"{cpu} {cores} cores"
    return Machine(
        name=re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"),
        cpu=cpu,
        cores=cores,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        accelerator=accelerator,
        accelerator_memory_bytes=accelerator_memory_bytes,
    )


def versions(*further_packages: str) -> dict[str, str]:
    """Versions of Python and of the packages that matter, and the commit where there is a git repository."""
    found = {"python": platform.python_version()}
    for package in (*_PACKAGES, *further_packages):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    commit = _commit()
    return found | ({"commit": commit} if commit else {})


def default_path(benchmark: str) -> Path:
    """Where the results of a benchmark on this machine go unless told otherwise."""
    return RESULTS_FOLDER / benchmark / f"{this_machine().name}.json"


def write_results(
    benchmark: str,
    rows: Sequence[ResultRow],
    *,
    module: str,
    path: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    further_packages: Sequence[str] = (),
) -> Path:
    """Write the results of a benchmark.

    Args:
        benchmark: Its name, the folder below `benchmarks/results`.
        rows: What was measured.
        module: The module that was run, for example `benchmarks.serving`; with the arguments of this process it gives
            the command.
        path: Where to; `default_path` where absent. Folders are made.
        settings: Sizes and choices of the run that a reader needs, such as the number of requests.
        further_packages: Packages whose versions matter beside the usual ones.

    Returns:
        The path of the file.
    """
    path = path or default_path(benchmark)
    content = {
        "benchmark": benchmark,
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": this_machine().model_dump(),
        "versions": versions(*further_packages),
        "embedded_base_model": {"pixels": _embedded_pixels()},
        "settings": dict(settings or {}),
        "rows": [row.as_json() for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def table(rows: Sequence[ResultRow]) -> str:
    """The rows as lines for a terminal."""
    lines = []
    for row in rows:
        value = "not measured" if row.value is None else f"{row.value:.4g} {row.unit}".rstrip()
        reach = "" if row.reach is None else f", {'met' if row.met else 'MISSED'} ({row.reach})"
        peer = "" if row.peer is None else f", peer {row.peer:.4g} {row.unit}".rstrip()
        lines.append(f"{row.what}: {value}{reach}{peer}")
    return "\n".join(lines)


def _embedded_pixels() -> int:
    """Side of the pictures of the base model that ships."""
    config = json.loads((base_model_path() / "vae" / "config.json").read_text(encoding="utf-8"))
    return int(config["sample_size"])


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def _accelerator() -> tuple[str | None, int | None]:
    """Name and bytes of the first GPU; torch is asked only where it is at hand, for some benchmarks do without it."""
    try:
        import torch
    except ImportError:
        return None, None
    if not torch.cuda.is_available():
        return None, None
    properties = torch.cuda.get_device_properties(0)
    return properties.name, properties.total_memory


def _commit() -> str | None:
    """The commit that is checked out, with `+` where tracked files differ from it; None outside of a repository."""
    folder = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
