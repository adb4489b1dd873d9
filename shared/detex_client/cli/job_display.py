"""Training progress, from upload to end, as progress bars and as JSON lines."""

from collections.abc import Iterable
from pathlib import Path

from detex_client.cli.picture_files import write_picture
from detex_client.cli.progress_display import Bar, ProgressDisplay
from detex_client.cli.terminal import Terminal
from detex_client.job import Job, JobEvent, JobPreview, JobProgress
from detex_client.upload import UploadProgress
from detex_client.wire_enum import JobPhase, JobState

_PHASES = {
    JobPhase.UNSPECIFIED: "Starting",
    JobPhase.PREPARING: "Preparing",
    JobPhase.TRAINING: "Training",
    JobPhase.PUBLISHING: "Publishing",
}


class UploadDisplay:
    """A progress bar for an upload; call it with each progress event, from any thread."""

    def __init__(self, progress: ProgressDisplay, photos: int) -> None:
        self._bar = progress.bar(f"Uploading {photos} photos")

    def __call__(self, progress: UploadProgress) -> None:
        """Show the progress of the upload."""
        amount = _amount(progress.sent_bytes, progress.total_bytes)
        self._bar.update(progress.sent_bytes, progress.total_bytes, amount=amount)

    def finish(self) -> None:
        """Show that the upload is done."""
        self._bar.finish()


class JobDisplay:
    """A bar for each phase of a job: waiting, preparing, training, publishing."""

    def __init__(self, progress: ProgressDisplay) -> None:
        self._progress = progress
        self._label = ""
        self._bar: Bar | None = None

    def show(self, event: JobEvent) -> None:
        """Show one event."""
        if isinstance(event, Job):
            if event.state is JobState.QUEUED:
                self._enter("Waiting for a worker").update(0, None)
            elif event.state.ended:
                self._leave()
            else:
                self._show_progress(event.progress)
        elif isinstance(event, JobProgress):
            self._show_progress(event)

    def _show_progress(self, progress: JobProgress | None) -> None:
        phase = progress.phase if progress is not None else JobPhase.UNSPECIFIED
        bar = self._enter(_PHASES[phase])
        if progress is None or phase is not JobPhase.TRAINING or progress.total_steps == 0:
            bar.update(0, None)
            return
        losses = [f"{name} {loss:.4f}" for name, loss in sorted(progress.losses.items(), reverse=True)]
        bar.update(
            progress.step,
            progress.total_steps,
            amount=f"{progress.step}/{progress.total_steps} steps",
            detail=", ".join([f"{progress.steps_per_second:.1f} it/s", *losses]),
            time_left_seconds=progress.time_left_seconds,
        )

    def _enter(self, label: str) -> Bar:
        if self._bar is None or label != self._label:
            self._leave()
            self._bar, self._label = self._progress.bar(label), label
        return self._bar

    def _leave(self) -> None:
        if self._bar is not None:
            self._bar.finish()
            self._bar = None


def follow(
    terminal: Terminal, progress: ProgressDisplay, events: Iterable[JobEvent], previews: Path | None = None
) -> Job:
    """Show the events of a job until it ends and return the ended job; previews are saved to the folder, if given."""
    display = JobDisplay(progress)
    job: Job | None = None
    for event in events:
        display.show(event)
        if isinstance(event, Job):
            job = event
            terminal.event("job", event)
        elif isinstance(event, JobProgress):
            terminal.event("progress", event)
        elif isinstance(event, JobPreview):
            path = write_picture(previews, f"preview_step-{event.step:05d}", event.png) if previews else None
            terminal.event("preview", {"step": event.step, "prompt": event.prompt, "path": path})
    if job is None:
        raise AssertionError("a watch ends with the job")
    return job


def _amount(sent_bytes: int, total_bytes: int) -> str:
    unit, divisor = ("MB", 1e6) if total_bytes >= 1e6 else ("kB", 1e3)
    return f"{sent_bytes / divisor:.1f}/{total_bytes / divisor:.1f} {unit}"
