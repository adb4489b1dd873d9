"""`python -m detex_trainer.worker`: trains one job."""

import os
import sys

from detex_trainer.worker.program import TrainFunction, run_worker


def _train_concept() -> TrainFunction:
    from detex_trainer.training import train_concept

    return train_concept


# Threads that wait for work sleep: spinning ones would take the cores from the services beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if __name__ == "__main__":
    sys.exit(run_worker(_train_concept))
