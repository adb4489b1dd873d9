"""The end of a process amid a compilation."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

_PROGRAM = """
import threading
import torch
from detex_generator.compute import step_compiler
from detex_generator.compute.step_compiler import StepCompiler

begun, sizes = threading.Event(), []

class Inputs:
    latents = torch.zeros(1, 4, 8, 8)

def compiled_step(unet, attention, name):
    def step(inputs, text):
        sizes.append(name)
        begun.set()
        threading.Event().wait(3)  # as long as a compilation
        print("compiled", len(sizes), flush=True)
    return step

step_compiler.compiled_step = compiled_step
compiler = StepCompiler(torch.device("cpu"), least_uses=1)
for key in range(2):
    compiler.use(object(), None, key, Inputs(), object())
begun.wait()
compiler.close()
"""


def test_a_process_ends_when_what_is_being_compiled_is_done_and_compiles_nothing_else() -> None:
    # Stopped half-way, a thread that is amid torch's code ends the process with SIGABRT.
    ended = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stdout) == (0, "compiled 1\n"), ended.stderr
