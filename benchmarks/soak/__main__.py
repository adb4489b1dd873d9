"""`python -m benchmarks.soak`: two honest tenants beside a hostile one. `python -m benchmarks.soak kills`: kills."""

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.results_file import table, write_results
from benchmarks.soak import kills, tenants
from benchmarks.soak.attacks import ATTACKS
from benchmarks.soak.honest.load import CALLS_PER_SECOND
from benchmarks.soak.rows import rows_of


def main() -> None:
    """Parse the command line, run, write the results; ends with 1 where something was not reached."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("part", nargs="?", choices=("tenants", "kills"), default="tenants")
    parser.add_argument("--seed", type=int, default=11, help="decides what is left to chance")
    parser.add_argument(
        "--out", type=Path, help="result file; by default benchmarks/results/{isolation,soak}/<machine>.json"
    )
    parser.add_argument("--work-folder", type=Path, help="for logs and data, kept; by default a temporary one")
    of_tenants = parser.add_argument_group("tenants")
    of_tenants.add_argument("--seconds", type=float, default=60.0, help="length of each phase")
    of_tenants.add_argument("--repeats", type=int, default=2, help="phases without, and as many beside")
    of_tenants.add_argument("--only", nargs="+", choices=ATTACKS, default=list(ATTACKS), metavar="KIND", help=_kinds())
    of_tenants.add_argument("--base-model", default="embedded", help="embedded, or a folder in diffusers' format")
    of_tenants.add_argument("--store", choices=("folder", "s3"), default="folder", help="s3 starts a SeaweedFS")
    of_tenants.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    of_kills = parser.add_argument_group("kills")
    of_kills.add_argument("--kills", type=int, default=kills.KILLS, help="kills that hit something")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="detex-soak-") as temporary:
        folder = (arguments.work_folder or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.part == "kills":
            rows = kills.measure(folder, kills=arguments.kills, seed=arguments.seed)
            settings = {"kills": arguments.kills, "seed": arguments.seed} | kills.SETTINGS
        else:
            asked = {
                "seconds": arguments.seconds,
                "kinds": tuple(arguments.only),
                "repeats": arguments.repeats,
                "seed": arguments.seed,
                "base_model": arguments.base_model,
                "store": arguments.store,
                "database": arguments.database,
            }
            rows = rows_of(tenants.measure(folder, **asked))
            settings = asked | {"calls_per_second_of_each_honest_tenant": CALLS_PER_SECOND}
    benchmark = "soak" if arguments.part == "kills" else "isolation"
    path = write_results(benchmark, rows, module="benchmarks.soak", path=arguments.out, settings=settings)
    print(table(rows))
    print(path)
    sys.exit(any(row.met is False for row in rows))


def _kinds() -> str:
    return f"these kinds of attacks alone: {', '.join(ATTACKS)}"


if __name__ == "__main__":
    main()
