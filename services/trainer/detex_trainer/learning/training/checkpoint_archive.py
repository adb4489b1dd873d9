"""Checkpoints of jobs in the object store, so that a job continues where another worker had to leave it.

    jobs/<tenant>/<id>/checkpoints/<number>/state.safetensors    all tensors
    jobs/<tenant>/<id>/checkpoints/<number>/checkpoint.json      all else, with the hash of the tensors; written last

Nothing is overwritten: a reader sees all of a checkpoint or nothing. The two newest are kept.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detex_core.errors import DataLossError, NotFoundError
from detex_core.object_store import ObjectStore
from detex_trainer.domain.job_files import job_prefix

RECORD_FILE = "checkpoint.json"
STATE_FILE = "state.safetensors"
_KEPT = 2

_log = logging.getLogger(__name__)


class CheckpointRecord(BaseModel):
    """What checkpoint.json says.

    Attributes:
        step: Steps done.
        digest: Of all that a job's course depends on; a checkpoint of another digest is of no use.
        size_bytes: Of the tensors.
        sha256: Of the tensors.
        create_time: When it was written.
        values: All that is not a tensor, by part.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    step: int = Field(ge=0)
    digest: str
    size_bytes: int = Field(ge=0)
    sha256: str
    create_time: datetime
    values: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint as it was read.

    Attributes:
        record: All but the tensors.
        tensors: In the format of safetensors.
    """

    record: CheckpointRecord
    tensors: bytes


def checkpoint_prefix(tenant: str, job_id: str) -> str:
    """What the keys of all checkpoints of a job begin with."""
    return f"{job_prefix(tenant, job_id)}checkpoints/"


class CheckpointArchive:
    """The checkpoints of one job; for use by one thread at a time."""

    def __init__(self, store: ObjectStore, tenant: str, job_id: str) -> None:
        self._store = store
        self._prefix = checkpoint_prefix(tenant, job_id)

    def save(self, step: int, digest: str, tensors: bytes, values: Mapping[str, Mapping[str, Any]]) -> CheckpointRecord:
        """Write a checkpoint and delete those older than the two newest.

        Args:
            step: Steps done.
            digest: See `CheckpointRecord`.
            tensors: In the format of safetensors.
            values: JSON by part.

        Raises:
            DetexError: As ObjectStore.put; a checkpoint that was not written whole does not exist.
        """
        numbers = self._numbers()
        number = max(numbers, default=0) + 1
        written = self._store.put(self._key(number, STATE_FILE), tensors, if_absent=True)
        record = CheckpointRecord(
            step=step,
            digest=digest,
            size_bytes=written.size_bytes,
            sha256=written.sha256 or "",
            create_time=datetime.now(UTC),
            values={part: dict(each) for part, each in values.items()},
        )
        data = record.model_dump_json(indent=2).encode()
        self._store.put(self._key(number, RECORD_FILE), data, if_absent=True, content_type="application/json")
        for old in sorted([*numbers, number])[:-_KEPT]:
            self._delete(old)
        return record

    def newest(self, digest: str) -> StoredCheckpoint | None:
        """The newest checkpoint that is whole; None where there is none. What is wrong with newer ones is logged.

        Raises:
            DetexError: As ObjectStore.get, but for damage, which leads to the checkpoint before.
        """
        for number in sorted(self._numbers(), reverse=True):
            try:
                record = CheckpointRecord.model_validate_json(self._store.get(self._key(number, RECORD_FILE)))
                if record.digest != digest:
                    _log.warning("checkpoint %d is of a job with other settings or another trainer: left out", number)
                    continue
                tensors = self._store.get(self._key(number, STATE_FILE), expected_sha256=record.sha256)
            except (DataLossError, NotFoundError, ValidationError) as error:
                _log.warning("checkpoint %d is damaged, the one before it is taken: %s", number, error)
                continue
            return StoredCheckpoint(record, tensors)
        return None

    def delete(self) -> int:
        """Delete all checkpoints; returns the number of objects deleted."""
        return sum(self._store.delete(found.key) for found in list(self._store.list(self._prefix)))

    def _numbers(self) -> list[int]:
        pattern = re.compile(rf"{re.escape(self._prefix)}(\d+)/.+")
        matches = (pattern.fullmatch(found.key) for found in self._store.list(self._prefix))
        return sorted({int(match[1]) for match in matches if match})

    def _delete(self, number: int) -> None:
        # The record first: what is left without one is no checkpoint.
        for name in (RECORD_FILE, STATE_FILE):
            self._store.delete(self._key(number, name))

    def _key(self, number: int, name: str) -> str:
        return f"{self._prefix}{number:06d}/{name}"
