"""Following a job through lost connections and restarts of the trainer."""

import time
from collections.abc import Callable, Iterator

import grpc

from detex_client.errors import DetexClientError
from detex_client.job import Job, JobEvent, JobPreview

RECONNECT_PAUSES_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0)


class JobWatch:
    """News of one job until it ends, over as many streams as that takes.

    Args:
        open_stream: Opens a stream, which begins with the job as it stands.
        pauses_seconds: Waits before new streams after failures in a row; the failure after the last one is raised.
    """

    def __init__(
        self,
        open_stream: Callable[[], Iterator[JobEvent]],
        pauses_seconds: tuple[float, ...] = RECONNECT_PAUSES_SECONDS,
    ) -> None:
        self._open_stream = open_stream
        self._pauses_seconds = pauses_seconds

    def events(self) -> Iterator[JobEvent]:
        """The news; a preview that comes again with a new stream is left out. The last one is the job as it ended.

        Raises:
            DetexClientError: A status other than unavailable, or unavailable too often in a row.
        """
        failures = 0
        newest_preview = -1
        while True:
            stream = self._open_stream()
            try:
                for event in stream:
                    failures = 0
                    if isinstance(event, JobPreview):
                        if event.step <= newest_preview:
                            continue
                        newest_preview = event.step
                    yield event
                    if isinstance(event, Job) and event.state.ended:
                        return
            except DetexClientError as error:
                # A stream's own deadline is there so that a silent connection is noticed; a job may well take longer.
                if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
                    continue
                # A trainer that shuts down ends its streams as unavailable or cancelled.
                lost = error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
                if not lost or failures == len(self._pauses_seconds):
                    raise
            else:
                if failures == len(self._pauses_seconds):
                    raise DetexClientError(
                        "The trainer repeatedly closed the job's event stream before the job had ended.",
                        code=grpc.StatusCode.UNAVAILABLE,
                        reason="WATCH_ENDED_EARLY",
                    )
            time.sleep(self._pauses_seconds[failures])
            failures += 1
