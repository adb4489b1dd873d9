"""The end of a process whose threads of small pieces of work are amid one."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

_PROGRAM = """
import threading
from detex_generator.engine.scheduling.small_first import SmallFirst

begun = threading.Event()

def long_work():
    begun.set()
    sum(range(10_000_000))
    print("done", flush=True)

threads = SmallFirst(1, "test", lambda: None, ())
threads.submit(0.0, long_work)
threads.submit(0.0, lambda: print("never begun", flush=True))
begun.wait()
threads.close()
"""


def test_a_process_ends_when_what_runs_is_done_and_begins_nothing_else() -> None:
    # Stopped half-way, a thread that is amid torch's code ends the process with SIGABRT.
    ended = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr
