"""Requests that gRPC takes from an iterator in its own thread, where an exception would only be logged."""

from collections.abc import Iterable, Iterator
from threading import Event
from typing import Any, Generic, Protocol, TypeVar

Request = TypeVar("Request")

LONGEST_WAIT_SECONDS = 10.0


class _Call(Protocol):
    def add_callback(self, callback: Any, /) -> bool: ...

    def cancel(self) -> Any: ...


class RequestStream(Generic[Request]):
    """Hands requests on; an exception of theirs cancels the call and is kept in `failure`.

    The call has ended before the iterator does, so that the service never takes the part for the whole.

    Args:
        requests: What to send.

    Attributes:
        failure: What the requests raised, if anything.
    """

    def __init__(self, requests: Iterable[Request]) -> None:
        self._requests = requests
        self._call: _Call | None = None
        self._attached = Event()
        self._ended = Event()
        self.failure: Exception | None = None

    def attach(self, call: Any) -> None:
        """Tell which call takes the requests."""
        self._call = call
        if not call.add_callback(self._ended.set):
            self._ended.set()
        self._attached.set()

    def __iter__(self) -> Iterator[Request]:
        try:
            yield from self._requests
        except Exception as error:
            self.failure = error
            if self._attached.wait(LONGEST_WAIT_SECONDS) and self._call is not None:
                self._call.cancel()
                self._ended.wait(LONGEST_WAIT_SECONDS)
