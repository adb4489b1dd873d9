"""Memory of a request for the pictures that came with it, from what all requests share."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from detex_core.images import decoding_bytes
from detex_core.memory_budget import MemoryBudget


@dataclass(frozen=True)
class PictureMemory:
    """What one tenant holds of the memory for decoding pictures.

    Attributes:
        budget: Shared by all.
        tenant: Whose pictures.
    """

    budget: MemoryBudget
    tenant: str

    @contextmanager
    def decoding(self, files: dict[str, bytes]) -> Iterator[None]:
        """Hold, for the time of a block, what decoding some files together takes; empty files are none.

        Args:
            files: By the name of their field in errors.

        Raises:
            InvalidInputError: The header of a file is wrong.
            ResourceExhaustedError: There was no memory within the longest wait.
        """
        size = sum(decoding_bytes(data, field=field) for field, data in files.items() if data)
        with self.budget.hold(size, self.tenant):
            yield
