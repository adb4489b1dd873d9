"""Calls that survive a Ctrl-C: gRPC's code runs in a thread of its own, and the caller waits beside it.

KeyboardInterrupt strikes the main thread wherever it is. Inside of gRPC that can be while a lock of the channel is
being taken, which then is never given back, and the next call on the channel waits forever. The caller therefore waits
on queues that are implemented in C, which a signal cannot leave half-way.
"""

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, Protocol, TypeVar

Answer = TypeVar("Answer")
Response_co = TypeVar("Response_co", covariant=True)

READ_AHEAD = 16


class StreamingCall(Protocol[Response_co]):
    """A call of gRPC whose answers come as a stream."""

    def __iter__(self) -> Iterator[Response_co]: ...

    def cancel(self) -> Any:
        """End the call."""


def answer_of(call: Callable[[], Answer]) -> Answer:
    """Run `call` in a thread of its own and return or raise what it comes to; a KeyboardInterrupt leaves it behind."""
    outcome: SimpleQueue[tuple[bool, Any]] = SimpleQueue()

    def run() -> None:
        try:
            outcome.put((True, call()))
        except BaseException as error:
            outcome.put((False, error))

    Thread(target=run, name="detex call", daemon=True).start()
    succeeded, value = outcome.get()
    if not succeeded:
        raise value
    return value  # type: ignore[no-any-return]


class BackgroundStream(Generic[Answer]):
    """The responses of a streaming call, read ahead by at most 16. Iterate once; leaving early cancels the call.

    Args:
        open_call: Begins the call.
    """

    def __init__(self, open_call: Callable[[], StreamingCall[Answer]]) -> None:
        self._open_call = open_call
        self._responses: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._permits: SimpleQueue[bool] = SimpleQueue()
        self._call: StreamingCall[Answer] | None = None
        self._left = False

    def __iter__(self) -> Iterator[Answer]:
        for _ in range(READ_AHEAD):
            self._permits.put(True)
        Thread(target=self._read, name="detex stream", daemon=True).start()
        try:
            while True:
                kind, value = self._responses.get()
                if kind == "end":
                    return
                if kind == "error":
                    raise value
                yield value
                self._permits.put(True)
        finally:
            self._left = True
            self._permits.put(False)
            if self._call is not None:
                self._call.cancel()

    def _read(self) -> None:
        try:
            self._call = self._open_call()
            if self._left:  # before there was a call to cancel
                self._call.cancel()
            responses = iter(self._call)
            while self._permits.get():
                try:
                    response = next(responses)
                except StopIteration:
                    self._responses.put(("end", None))
                    return
                self._responses.put(("response", response))
            self._call.cancel()
        except BaseException as error:
            self._responses.put(("error", error))
