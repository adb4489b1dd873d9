"""Start a service that ends with its parent: `python -m detex_client.demo.child MODULE PARENT`.

Ends the service even where the parent had no time to: on Linux the kernel sends it SIGTERM when the parent is gone.
Elsewhere this only starts it.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(module: str, parent: int) -> None:
    """Become `python -m module`; exits at once where the parent is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(1)
    os.execv(sys.executable, [sys.executable, "-m", module])  # noqa: S606  no shell is meant


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
