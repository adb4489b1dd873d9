"""`python -m detex_trainer`: runs the trainer."""

import sys

from detex_trainer.server import main

if __name__ == "__main__":
    sys.exit(main())
