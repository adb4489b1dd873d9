"""Pictures over streams of many requests: as many in flight as a stream takes, and redrawn where a stream breaks."""

import time
from collections import deque
from collections.abc import Iterator
from queue import Queue
from threading import Condition, Event, Thread

import grpc

from detex_catalog.run.news import DrawingTask, Drawn, News, Refused, ServiceAway, ServiceBack, ThreadFailed
from detex_client import DetexClientError, GeneratedPicture, GeneratorClient, PictureRequest, RequestDone, RequestFailed

IN_FLIGHT = 32
"""Requests of a stream at a time; what the generator works on of one by default."""
IDLE_SECONDS = 2.0
"""A stream with nothing to do for so long is closed."""
_REQUESTS_PER_STREAM = 10_000
_SHORTEST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.5, 15.0
_TRY_AGAIN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
)


def worth_another_try(error: DetexClientError) -> bool:
    """Whether the same request may succeed later."""
    return error.retry_delay_seconds is not None or error.code in _TRY_AGAIN


class Drawing:
    """Draws tasks from threads of its own and tells what became of them; each is told of once.

    Args:
        generator: Shared by all streams.
        news: Where it tells.
        streams: Streams at a time; several reach several generators where the address names them all.
    """

    def __init__(self, generator: GeneratorClient, news: "Queue[News]", *, streams: int = 1) -> None:
        self._generator = generator
        self._news = news
        self._changed = Condition()
        self._pending: deque[DrawingTask] = deque()
        self._later: list[tuple[float, DrawingTask]] = []
        self._ending = False
        self._threads = [Thread(target=self._run, name=f"drawing {index}", daemon=True) for index in range(streams)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def submit(self, task: DrawingTask) -> None:
        """Have a task drawn."""
        with self._changed:
            self._pending.append(task)
            self._changed.notify_all()

    def end(self, seconds: float) -> bool:
        """Take no more tasks, and wait for those in flight; whether all have ended."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    @property
    def ending(self) -> bool:
        """Whether no more tasks are taken."""
        return self._ending

    def _run(self) -> None:
        pause = _SHORTEST_PAUSE_SECONDS
        try:
            while (first := self._next(patient=True)) is not None:
                stream = _Stream(self, first)
                try:
                    stream.draw(self._generator)
                    stream.give_back(pause)
                    pause = _SHORTEST_PAUSE_SECONDS
                except DetexClientError as error:
                    answered = stream.answered
                    stream.give_back(0.0 if answered else pause)
                    if error.code is grpc.StatusCode.DEADLINE_EXCEEDED and answered:
                        continue  # the stream's own deadline
                    if not worth_another_try(error):
                        raise
                    self._news.put(ServiceAway("generator", error))
                    pause = _SHORTEST_PAUSE_SECONDS if answered else min(2 * pause, _LONGEST_PAUSE_SECONDS)
                    with self._changed:
                        self._changed.wait_for(lambda: self._ending, pause)
        except Exception as error:
            self._news.put(ThreadFailed(error))

    def _next(self, *, patient: bool) -> DrawingTask | None:
        """The next task; None at the end, and for the impatient also where none came for a while."""
        deadline = time.monotonic() + IDLE_SECONDS
        with self._changed:
            while not self._ending:
                now = time.monotonic()
                due = [entry for entry in self._later if entry[0] <= now]
                for entry in due:
                    self._later.remove(entry)
                    self._pending.append(entry[1])
                if self._pending:
                    return self._pending.popleft()
                if not patient and now >= deadline:
                    return None
                self._changed.wait(0.25)
        return None

    def tell(self, news: News) -> None:
        """Pass on what became of a task."""
        self._news.put(news)

    def later(self, task: DrawingTask, seconds: float) -> None:
        """Draw a task after a pause."""
        with self._changed:
            self._later.append((time.monotonic() + seconds, task))
            self._changed.notify_all()

    def next_of_stream(self) -> DrawingTask | None:
        """The next task of a stream that is open."""
        return self._next(patient=False)


class _Stream:
    """One stream from its first task on. A task is its own from when it is taken until it is told of or given back."""

    def __init__(self, drawing: Drawing, first: DrawingTask) -> None:
        self._drawing = drawing
        self._open: dict[int, DrawingTask] = {0: first}
        self._sent = 1
        self._changed = Condition()
        self._closed = Event()
        self.answered = False

    def draw(self, generator: GeneratorClient) -> None:
        """Draw until there is nothing more to draw.

        Raises:
            DetexClientError: The stream broke; what it left undone waits for `give_back`.
        """
        pictures: dict[int, GeneratedPicture] = {}
        try:
            for news in generator.generate_many(self._requests()):
                if not self.answered:
                    self.answered = True
                    self._drawing.tell(ServiceBack("generator"))
                match news.event:
                    case GeneratedPicture():
                        pictures[news.request_index] = news.event
                    case RequestFailed(error):
                        self._failed(self._settle(news.request_index), error)
                    case RequestDone():
                        task = self._settle(news.request_index)
                        self._drawing.tell(Drawn(task, pictures.pop(news.request_index).png))
        finally:
            with self._changed:
                self._closed.set()
                self._changed.notify_all()

    def give_back(self, seconds: float) -> None:
        """Have what the stream left undone drawn again, after a pause; a generator that drains leaves some."""
        with self._changed:
            left, self._open = list(self._open.values()), {}
        for task in left:
            self._drawing.later(task, seconds)

    def _requests(self) -> Iterator[PictureRequest]:
        task: DrawingTask | None = self._open.get(0)
        while task is not None:
            yield task.order.request(task.seed, task.versions)
            task = self._following()

    def _following(self) -> DrawingTask | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed.is_set() or len(self._open) < IN_FLIGHT)
            if self._closed.is_set() or self._sent >= _REQUESTS_PER_STREAM:
                return None
        task = self._drawing.next_of_stream()
        while task is None and not self._drawing.ending and not self._closed.is_set() and self._open:
            task = self._drawing.next_of_stream()  # a picture that is on its way may have to be redrawn
        if task is None:
            return None
        with self._changed:
            if self._closed.is_set():
                self._drawing.later(task, 0.0)
                return None
            self._open[self._sent] = task
            self._sent += 1
        return task

    def _settle(self, index: int) -> DrawingTask:
        with self._changed:
            self._changed.notify_all()
            return self._open.pop(index)

    def _failed(self, task: DrawingTask, error: DetexClientError) -> None:
        if worth_another_try(error):
            self._drawing.later(task, error.retry_delay_seconds or _SHORTEST_PAUSE_SECONDS)
        else:
            self._drawing.tell(Refused(task, error))
