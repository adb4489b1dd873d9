"""`python -m detex_trainer.worker`: trains one job."""

import sys

from detex_trainer.worker.program import TrainFunction, run_worker


def _train_concept() -> TrainFunction:
    from detex_trainer.training import train_concept

    return train_concept


if __name__ == "__main__":
    sys.exit(run_worker(_train_concept))
