"""Compiles planned launches for GPUs that are not there, and reads what came out.

Types, alignments and constants are derived from the launch as Triton derives them when it launches: pointers are
aligned to 16 bytes, integers that are multiples of 16 are known to be so, and an integer 1 is a constant.
"""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from detex_generator.ops.triton_kernels.launch import Launch

TYPES = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.int32: "*i32",
    torch.int8: "*i8",
}
SHARED_BYTES = {80: 163 * 1024, 90: 227 * 1024}
"""What a program may take at most, by compute capability: CUDA C++ Programming Guide, technical specifications."""


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a launch.

    Attributes:
        registers: Of a thread.
        spill_bytes: Stores and loads of registers that did not fit.
        shared_bytes: Shared memory of a program.
        instructions: How often each instruction stands in the machine code, with its modifiers.
    """

    registers: int
    spill_bytes: int
    shared_bytes: int
    instructions: Counter[str]

    def count(self, pattern: str) -> int:
        """Instructions whose name and modifiers match a regular expression from their start."""
        return sum(number for name, number in self.instructions.items() if re.match(pattern, name))


def compiled(launch: Launch, capability: int) -> Compiled:
    """Compile for compute capability 80 or 90."""
    constants: dict[str, Any] = {}
    signature: dict[str, str] = {}
    alignments: dict[tuple[int, ...], list[list[object]]] = {}
    for index, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        if parameter.is_constexpr or (type(value) is int and value == 1):
            signature[parameter.name] = "constexpr"
            constants[parameter.name] = value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = TYPES[value.dtype]
            alignments[(index,)] = [["tt.divisibility", 16]]
        elif isinstance(value, int):
            signature[parameter.name] = "i32"
            if value % 16 == 0:
                alignments[(index,)] = [["tt.divisibility", 16]]
        else:
            signature[parameter.name] = "fp32"
    source = ASTSource(launch.kernel, signature, constants, alignments)
    result = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch.options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(result.asm["cubin"])
        usage = _output(triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(path))
        machine_code = _output(triton.knobs.nvidia.nvdisasm.path, "-c", str(path))
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise ValueError(f"cuobjdump tells no resources: {usage}")
    names = re.findall(r"^\s+/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?([A-Z][A-Z0-9_.]*)", machine_code, flags=re.MULTILINE)
    if not names:
        raise ValueError(f"nvdisasm gives no instructions: {machine_code[:2000]}")
    return Compiled(int(found[1]), int(found[2]), result.metadata.shared, Counter(names))


def _output(tool: str, *arguments: str) -> str:
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout + done.stderr
