"""How a run is to go."""

from pydantic import BaseModel, ConfigDict, Field

from detex_catalog.checks.picture_check import Thresholds


class RunOptions(BaseModel):
    """Limits and thresholds of a run.

    Attributes:
        thresholds: What pictures must reach.
        max_redraws: Further tries of a picture that a check refuses, with other seeds; rows may name their own.
        training_jobs: Jobs that are submitted and have not ended, at most.
        streams: Streams of pictures at a time.
        patience_seconds: How long a service may be away before the run ends.
        drain_seconds: How long pictures on their way are waited for when the run is asked to stop.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    thresholds: Thresholds = Thresholds()
    max_redraws: int = Field(default=3, ge=0, le=100)
    training_jobs: int = Field(default=8, ge=1, le=1000)
    streams: int = Field(default=1, ge=1, le=64)
    patience_seconds: float = Field(default=300.0, ge=0, le=86_400)
    drain_seconds: float = Field(default=10.0, ge=0, le=3600)
