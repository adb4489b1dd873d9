"""The order of attention's libraries is set once for the process, whatever threads do meanwhile."""

import subprocess
import sys

_CODE = """
import threading
import torch
from torch.nn.attention import SDPBackend
from detex_generator.compute.acceleration import Acceleration
from detex_generator.compute.attention_order import FASTEST_FIRST
from detex_generator.ops.choice import KernelChoice

def order():
    return [int(each) for each in torch._C._get_sdp_priority_order()][:len(FASTEST_FIRST)]

torch.cuda.get_device_capability = lambda device: (9, 0)
before = order()
Acceleration(KernelChoice("auto", torch.device("cpu"), torch.float32), torch.device("cpu"), cuda_graphs=True)
assert order() == before, "a CPU has no order"
gpu = torch.device("cuda")
threads = [
    threading.Thread(target=lambda: Acceleration(KernelChoice("auto", gpu, torch.float16), gpu, cuda_graphs=True))
    for _ in range(4)
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert order() == [int(each) for each in FASTEST_FIRST], order()
assert before != order()
query = torch.ones(1, 1, 2, 8)
torch.nn.functional.scaled_dot_product_attention(query, query, query)
assert order() == [int(each) for each in FASTEST_FIRST], order()
"""


def test_cudnn_comes_first_on_a_gpu_and_stays_so() -> None:
    subprocess.run([sys.executable, "-c", _CODE], check=True, timeout=240)
