"""Data-parallel training on the cores of one machine: a process with one thread for each core.

Threads inside an operator wait for each other thousands of times a step, which costs most of the time as soon as
anything else runs on the machine; replicas meet once a step, to average their gradients.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Replicas:
    """This process's place among the replicas. With one replica, every method leaves its argument as it is."""

    def __init__(self, rank: int, count: int, meeting_point: Path) -> None:
        """Join the others.

        Args:
            rank: this process's number, from 0.
            count: number of replicas.
            meeting_point: a file that no earlier run has used, by which the replicas find each other.
        """
        self.rank = rank
        self.count = count
        if count > 1:
            dist.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=count)

    @property
    def leads(self) -> bool:
        """Whether this replica writes the files and reports."""
        return self.rank == 0

    def agree(self, value: float) -> float:
        """The leader's value, in every replica."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(shared, 0)
        return float(shared)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the replicas."""
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.count
        first = 0
        for gradient in gradients:
            gradient.copy_(flat[first : first + gradient.numel()].view_as(gradient))
            first += gradient.numel()

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of all replicas' tensors, which must be on the CPU."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def meet(self) -> None:
        """Wait for the others."""
        if self.count > 1:
            dist.barrier()

    def leave(self) -> None:
        """Wait for the others and part."""
        self.meet()
        if self.count > 1:
            dist.destroy_process_group()
