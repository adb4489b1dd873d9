"""What the compiler makes of each kernel, for GPUs that need not be there."""

from collections.abc import Iterator

from benchmarks.kernels.compilation import SHARED_BYTES, compiled
from benchmarks.kernels.launches import ELEMENT_LAUNCHES, MATRIX_LAUNCHES
from benchmarks.results_file import ResultRow, at_most

REGISTERS_OF_A_PROCESSOR = 65536
MOST_WARPS = 64
LANES = 32


def machine_code_rows() -> Iterator[ResultRow]:
    """Registers, spills, shared memory and what fits on a multiprocessor, by kernel and compute capability."""
    for name, launch in {**MATRIX_LAUNCHES, **ELEMENT_LAUNCHES}.items():
        for capability, shared_limit in SHARED_BYTES.items():
            found = compiled(launch, capability)
            by_registers = REGISTERS_OF_A_PROCESSOR // (found.registers * LANES * launch.warps)
            by_shared = shared_limit // max(1, found.shared_bytes)
            programs = min(by_registers, by_shared, MOST_WARPS // launch.warps)
            what = f"{name}, sm_{capability}"
            note = (
                f"{found.registers} registers, {found.shared_bytes} bytes of shared memory, {launch.warps} warps; "
                f"{found.count('HGMMA')} HGMMA, {found.count('HMMA')} HMMA"
            )
            yield ResultRow(what=f"{what}: spilled", value=found.spill_bytes, unit="bytes", reach=at_most(0), note=note)
            yield ResultRow(what=f"{what}: warps that fit on a multiprocessor", value=programs * launch.warps)
