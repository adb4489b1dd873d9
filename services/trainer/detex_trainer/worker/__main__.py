"""`python -m detex_trainer.worker`: trains one job, or several together."""

import os
import sys

from detex_trainer.worker.pack_run import TrainFunction
from detex_trainer.worker.program import run_worker


def _train_pack() -> TrainFunction:
    from detex_trainer.learning.training.pack_training import train_pack

    return train_pack


# Threads that wait for work sleep: spinning ones would take the cores from the services beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if __name__ == "__main__":
    sys.exit(run_worker(_train_pack))
