"""What a worker process may take of this machine's memory."""

import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_GIB = 1024**3
_KIB = 1024


@dataclass(frozen=True)
class WorkerMemory:
    """A limit on the memory of a worker.

    Attributes:
        most_bytes: What it may take; 0 sets no limit.
        refuses_more: Whether it is refused what lies beyond, so that it can end in order; otherwise it is only ended
            when it has taken it. Not for workers on a GPU, whose driver reserves addresses far beyond what it uses.
    """

    most_bytes: int
    refuses_more: bool = False

    def bind(self, pid: int) -> None:
        """Have the kernel refuse a process what lies beyond the limit: private memory that it may write to."""
        if self.most_bytes and self.refuses_more:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_DATA, (self.most_bytes, self.most_bytes))

    def is_exceeded_by(self, pid: int) -> bool:
        """Whether a process has taken more: what is resident of it, but for files that it has mapped."""
        if not self.most_bytes:
            return False
        try:
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            return False
        sizes = dict(line.split(":", 1) for line in status.splitlines() if line.startswith(("RssAnon:", "RssShmem:")))
        return sum(int(size.split()[0]) for size in sizes.values()) * _KIB > self.most_bytes

    def describe(self) -> str:
        """The limit in words."""
        return f"the {self.most_bytes / _GIB:,.2f} GiB of memory that a worker may use"


UNLIMITED = WorkerMemory(0)
