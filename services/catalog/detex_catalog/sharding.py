"""Which part of a catalog a run does, where several share it."""

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from detex_catalog.table.catalog import Catalog

INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
"""Set by Kubernetes in the pods of an Indexed Job."""


@dataclass(frozen=True)
class Shard:
    """One of so many parts.

    Attributes:
        index: From 0.
        count: Parts in all.
    """

    index: int = 0
    count: int = 1

    def takes(self, concept: str) -> bool:
        """Whether the pictures of a concept are this part's: a concept is trained by one run alone.

        By rendezvous hashing (Thaler and Ravishankar, 1998), so that a catalog that grows moves nothing.
        """
        weights = [hashlib.sha256(f"{index} {concept}".encode()).digest() for index in range(self.count)]
        return max(range(self.count), key=weights.__getitem__) == self.index

    def part(self, catalog: Catalog) -> Catalog:
        """This part of a catalog; concepts that a prompt names together are of one part."""
        groups = _groups(picture.concepts for picture in catalog.pictures)
        return catalog.only(picture for picture in catalog.pictures if self.takes(groups[picture.concept]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def _groups(together: Iterable[tuple[str, ...]]) -> dict[str, str]:
    """For each name, the first by alphabet of those that it hangs together with."""
    members: dict[str, set[str]] = {}
    for names in together:
        joined = set(names).union(*(members.get(name, ()) for name in names))
        for name in joined:
            members[name] = joined
    return {name: min(group) for name, group in members.items()}


def parse_shard(text: str) -> Shard:
    """A shard from `i/n`, i from 0, or from `n` alone, where Kubernetes tells i; empty is the whole.

    Raises:
        ValueError: It is neither, or i is not below n.
    """
    if not text:
        return Shard()
    match = re.fullmatch(r"(?:([0-9]{1,5})/)?([0-9]{1,5})", text.strip())
    if match is None:
        raise ValueError(f"must be i/n with i from 0, or n where {INDEX_VARIABLE} is set, got {text!r}")
    index = match[1] if match[1] is not None else os.environ.get(INDEX_VARIABLE, "")
    if not index.isdecimal():
        raise ValueError(f"must be i/n, for {INDEX_VARIABLE} is not set, got {text!r}")
    shard = Shard(int(index), int(match[2]))
    if shard.index >= shard.count:
        raise ValueError(f"must have i below n, got {shard}")
    return shard
