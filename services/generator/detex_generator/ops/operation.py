"""The operations that have kernels of their own, what can compute them, and the error where that cannot run."""

from enum import StrEnum

from detex_core.errors import FailedPreconditionError


class Operation(StrEnum):
    """What is computed."""

    SEGMENTED_ATTENTION = "segmented_attention"
    SELF_ATTENTION = "self_attention"
    GEGLU = "geglu"
    GROUP_NORM_SILU = "group_norm_silu"
    GUIDED_SOLVER_STEP = "guided_solver_step"


class Implementation(StrEnum):
    """By what it is computed."""

    TORCH = "torch"
    TRITON = "triton"


class KernelUnavailableError(FailedPreconditionError):
    """A kernel was asked for by name that cannot run here; nothing else is taken in its place."""

    reason = "KERNEL_UNAVAILABLE"
