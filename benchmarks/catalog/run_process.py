"""`detex catalog run` as a process of its own, whole or killed."""

import hashlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from detex_catalog.run.journal import read_events

# Nothing is drawn twice for what it shows: the checks are made, and none refuses.
_LENIENT = ("--min-likeness", "0", "--min-contrast", "0", "--min-duplicate-distance", "0")
_POLL_SECONDS = 0.02
_LONGEST_SECONDS = 7200


@dataclass(frozen=True)
class CatalogCommand:
    """A command line.

    Attributes:
        table: The catalog.
        out: Output folder.
        trainer: Address of the trainer.
        generator: Address of the generator.
    """

    table: Path
    out: Path
    trainer: str
    generator: str

    def start(self) -> "subprocess.Popen[bytes]":
        """Start it; its lines go to a file beside the output folder."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DETEX_")}
        environment |= {"DETEX_TRAINER_ADDRESS": self.trainer, "DETEX_GENERATOR_ADDRESS": self.generator}
        words = [sys.executable, "-m", "detex_catalog", "run", str(self.table), "--out", str(self.out), "--json"]
        with self.out.with_suffix(".log").open("ab") as log:
            return subprocess.Popen([*words, *_LENIENT], env=environment, stdout=log, stderr=subprocess.STDOUT)

    def run(self) -> float:
        """Run it to its end; seconds from start to exit.

        Raises:
            RuntimeError: It did not end with 0.
        """
        begun = time.monotonic()
        code = self.start().wait(_LONGEST_SECONDS)
        if code != 0:
            raise RuntimeError(f"the run ended with {code}, see {self.out.with_suffix('.log')}")
        return time.monotonic() - begun

    def run_through_kills(self, kills: int, pictures: int, chance: random.Random) -> int:
        """Kill it at moments that spread over the pictures, then let it end; kills that hit a run under way."""
        hits = 0
        for number in range(kills):
            process = self.start()
            wanted = pictures * (number + chance.random()) / (kills + 1)
            while process.poll() is None and len(accepted(self.out)) < wanted:
                time.sleep(_POLL_SECONDS)
            time.sleep(chance.uniform(0, 0.5))
            hits += process.poll() is None
            process.kill()
            process.wait()
        self.run()
        return hits


def accepted(out: Path) -> Counter[str]:
    """How often each picture was accepted, by the journal."""
    return Counter(event["output"] for event in read_events(out) if event["event"] == "accepted")


def lost(out: Path, pictures: int) -> int:
    """Pictures that are missing, or not what the journal says."""
    whole = 0
    for event in read_events(out):
        if event["event"] == "accepted":
            path = out / "pictures" / event["output"]
            whole += path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == event["sha256"]
    return pictures - min(whole, len(accepted(out)))


def doubled(out: Path) -> int:
    """Pictures that were accepted more than once, and files that no picture has."""
    counted = accepted(out)
    files = {str(path.relative_to(out / "pictures")) for path in (out / "pictures").rglob("*") if path.is_file()}
    return sum(count - 1 for count in counted.values()) + len(files - set(counted))
