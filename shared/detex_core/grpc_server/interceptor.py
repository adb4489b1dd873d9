"""What surrounds every call: tenant, errors as statuses, metrics, logs, and the count of calls that run."""

import asyncio
import inspect
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from detex_core.access.audit_log import AuditLog
from detex_core.access.call_subject import subject_of_call
from detex_core.access.caller import Caller, CallerRefusedError, Gate, OpenGate
from detex_core.deadline import is_over
from detex_core.errors import ResourceExhaustedError, UnavailableError, invalid_input
from detex_core.grpc_server.call_metrics import CallMetrics
from detex_core.grpc_server.message_outline import check_outline
from detex_core.grpc_server.status import as_domain_error, rich_status
from detex_core.logging import add_log_fields
from detex_core.memory_budget import LARGE_MESSAGE_BYTES, MESSAGE_SHARE, RETRY_SECONDS, MemoryBudget
from detex_core.tenancy import current_tenant, set_tenant
from detex_core.tracing import NO_SPAN, Span, Tracing, set_span

Context = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, Context], Any]

# Endings that are the caller's doing; all others are worth a warning.
_ORDINARY = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
    }
)
# The message as it came, as it is parsed, and what handlers make of it.
_COPIES = 3
_CODES = {code.value[0]: code for code in grpc.StatusCode}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Method:
    kind: str
    service: str
    name: str

    @property
    def is_ours(self) -> bool:
        """Whether it is of the domain rather than health or reflection."""
        return not self.service.startswith("grpc.")


class _Running:
    """Metrics, log, span and audit entry of a call that runs.

    A call is counted before its status is sent: who has the answer of a call finds it in the metrics.
    """

    def __init__(self, metrics: CallMetrics, method: _Method, span: Span, audit: AuditLog | None) -> None:
        self._metrics = metrics
        self._audit = audit
        self._caller = Caller("", "", "")
        self._about: Mapping[str, str] = {}
        self._span = span
        self._method = method
        self._begin = time.perf_counter()
        self._ended = False
        metrics.begin(method.kind, method.service, method.name)

    def end(self, code: grpc.StatusCode, reason: str = "") -> None:
        """The call ends with this status; further calls do nothing."""
        if self._ended:
            return
        self._ended = True
        self._note(code, reason)
        method, seconds = self._method, time.perf_counter() - self._begin
        self._metrics.end(method.kind, method.service, method.name, code.name, seconds, self._span.exemplar)
        _log(method, code, reason, seconds)
        self._span.end(code.name)

    def made_by(self, caller: Caller) -> None:
        """The caller is known from here on."""
        self._caller = caller

    def asks(self, message: object) -> None:
        """What the call is about is known from here on."""
        if self._audit is not None:
            self._about = subject_of_call(message)

    def _note(self, code: grpc.StatusCode, reason: str) -> None:
        if self._audit is None or not self._method.is_ours:
            return
        entry = {
            "caller": self._caller.name,
            "subject": self._caller.subject,
            "tenant": self._caller.tenant,
            "method": f"{self._method.service}/{self._method.name}",
            **self._about,
            "outcome": code.name,
            "reason": reason.partition(":")[0],
        }
        try:
            self._audit.write(entry)
        except OSError as error:
            logger.error("the audit log cannot be written: %s", error.strerror)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps handlers of all four kinds.

    DetexError becomes its status with details; any other exception becomes INTERNAL with an incident id, and its text
    goes to the log only. A handler whose caller is gone or whose deadline has passed is cancelled, and generators of
    responses are closed at once, so that their `finally` blocks run.
    """

    def __init__(
        self,
        metrics: CallMetrics,
        tracing: Tracing,
        messages: MemoryBudget,
        *,
        max_calls_per_tenant: int = 0,
        gate: Gate | None = None,
        audit: AuditLog | None = None,
    ) -> None:
        """No call runs yet.

        Args:
            metrics: Counts and times.
            tracing: Where spans go.
            messages: Memory for large messages.
            max_calls_per_tenant: Calls of the domain of one tenant that may run at a time; 0 sets no limit.
            gate: Who may call; everybody where absent.
            audit: Where calls of the domain are noted; nowhere where absent.
        """
        self._gate = gate or OpenGate()
        self._audit = audit
        self._max_calls_per_tenant = max_calls_per_tenant
        self._tenant_calls: Counter[str] = Counter()
        self._messages = messages
        self._metrics = metrics
        self._tracing = tracing
        self._ours = 0
        self._others: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._ending = False

    async def wait_until_idle(self) -> None:
        """Return when no call of the domain runs."""
        await self._idle.wait()

    def end_other_calls(self) -> None:
        """End running calls of health and reflection, which may last forever."""
        self._ending = True
        for task in self._others:
            task.cancel()

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """The handler of the call, wrapped."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return handler  # gRPC answers UNIMPLEMENTED
        _, service, name = handler_call_details.method.split("/", 2)
        match (handler.request_streaming, handler.response_streaming):
            case (False, False):
                method = _Method("UNARY", service, name)
                wrapped, make = handler.unary_unary, grpc.unary_unary_rpc_method_handler
            case (True, False):
                method = _Method("CLIENT_STREAM", service, name)
                wrapped, make = handler.stream_unary, grpc.stream_unary_rpc_method_handler
            case (False, True):
                method = _Method("SERVER_STREAM", service, name)
                wrapped, make = handler.unary_stream, grpc.unary_stream_rpc_method_handler
            case _:
                method = _Method("BIDI_STREAM", service, name)
                wrapped, make = handler.stream_stream, grpc.stream_stream_rpc_method_handler
        parse = self._stream_parser if handler.request_streaming else _parser
        parsed = parse(handler.request_deserializer)
        behaviour = (self._streaming if handler.response_streaming else self._single)(wrapped, parsed, method)
        # Requests come as bytes and are parsed within the call, so that malformed ones are answered as other bad input.
        return make(behaviour, None, handler.response_serializer)

    def _single(self, wrapped: Behaviour, parsed: Callable[[Any], Any], method: _Method) -> Behaviour:
        async def behaviour(request: Any, context: Context) -> Any:
            async with self._call(method, context) as running:
                with self._room_for(request):
                    async with _closing(parsed(request)) as message:
                        running.asks(message)
                        return await wrapped(message, context)

        return behaviour

    def _streaming(self, wrapped: Behaviour, parsed: Callable[[Any], Any], method: _Method) -> Behaviour:
        async def behaviour(request: Any, context: Context) -> None:
            async with self._call(method, context) as running:
                with self._room_for(request):
                    async with _closing(parsed(request)) as message:
                        running.asks(message)
                        if not inspect.isasyncgenfunction(wrapped):
                            await wrapped(message, context)
                            return
                        async with aclosing(wrapped(message, context)) as responses:
                            async for response in responses:
                                await context.write(response)

        return behaviour

    def _stream_parser(
        self, deserialize: Callable[[bytes], Any] | None
    ) -> Callable[[AsyncIterator[bytes]], AsyncIterator[Any]]:
        """As `_parser` for a stream of requests; the error comes out of the stream in the place of the request."""
        parse = _parser(deserialize)

        async def parse_all(stream: AsyncIterator[bytes]) -> AsyncIterator[Any]:
            async for data in stream:
                if len(data) < LARGE_MESSAGE_BYTES:
                    yield parse(data)
                    continue
                # A stream waits for memory, so that its caller is held up rather than refused.
                size = _COPIES * len(data)
                async with self._messages.hold_when_free(size, current_tenant(), share=MESSAGE_SHARE):
                    yield parse(data)

        return parse_all

    @contextmanager
    def _room_for(self, request: object) -> Iterator[None]:
        """Hold memory for a large message while its call runs."""
        if not isinstance(request, bytes) or len(request) < LARGE_MESSAGE_BYTES:
            yield
            return
        with self._messages.hold_at_once(_COPIES * len(request), current_tenant(), share=MESSAGE_SHARE):
            yield

    @contextmanager
    def _place_of_tenant(self, method: _Method) -> Iterator[None]:
        """Count a call of a tenant while it runs; raises ResourceExhaustedError where too many do."""
        if not method.is_ours:
            yield
            return
        tenant = current_tenant()
        if 0 < self._max_calls_per_tenant <= self._tenant_calls[tenant]:
            raise ResourceExhaustedError(
                f"This tenant has {self._max_calls_per_tenant:,} calls running, the maximum; end some, or try again in "
                "a moment.",
                reason="TOO_MANY_CALLS",
                retry_delay_seconds=RETRY_SECONDS,
            )
        self._tenant_calls[tenant] += 1
        try:
            yield
        finally:
            self._tenant_calls[tenant] -= 1
            if not self._tenant_calls[tenant]:
                del self._tenant_calls[tenant]

    @asynccontextmanager
    async def _call(self, method: _Method, context: Context) -> AsyncIterator[_Running]:
        full_name = f"{method.service}/{method.name}"
        span = NO_SPAN
        if method.is_ours:
            span = self._tracing.begin_call(full_name, context.invocation_metadata() or ())
        running = _Running(self._metrics, method, span, self._audit)
        task = self._enter(method)
        try:
            add_log_fields(grpc_method=full_name)
            if span.trace_id:
                add_log_fields(trace_id=span.trace_id)
            set_span(span)
            # First of all: of those who may not call, nothing is parsed.
            metadata: Any = context.invocation_metadata() or ()
            caller = await self._gate.admit(full_name, metadata, context.auth_context() or {})
            running.made_by(caller)
            if method.is_ours:
                set_tenant(caller.tenant)
                if caller.name:
                    add_log_fields(caller=caller.name)
            with self._place_of_tenant(method):
                yield running
            running.end(_code(context))
        except asyncio.CancelledError:
            ended_here = self._ending and not method.is_ours
            if task is not None and task.cancelling() and not ended_here:
                running.end(_why_cancelled(context))  # gRPC cancels the task of a call whose caller is gone
                raise
            # The cancellation comes out of something the handler waited for; gRPC would leave its caller waiting.
            given_up = UnavailableError("The service has cancelled this call.")
            running.end(given_up.code, given_up.reason)
            await context.abort_with_status(rich_status(given_up))
        except grpc.aio.InternalError:
            # A message could not be written, so the caller is gone: the context learns of it only afterwards.
            running.end(_why_cancelled(context))
            raise
        except grpc.aio.BaseError:  # the handler has aborted
            running.end(_why_cancelled(context) if context.cancelled() else _code(context))
            raise
        except Exception as error:
            known = as_domain_error(error)
            if isinstance(error, CallerRefusedError):
                running.made_by(error.caller)
            running.end(known.code, f"{known.reason}: {known.message}")
            await context.abort_with_status(rich_status(known))
        finally:
            running.end(grpc.StatusCode.UNKNOWN)
            self._leave(method, task)

    def _enter(self, method: _Method) -> asyncio.Task[Any] | None:
        task = asyncio.current_task()
        if method.is_ours:
            self._ours += 1
            self._idle.clear()
        elif task is not None:
            self._others.add(task)
        return task

    def _leave(self, method: _Method, task: asyncio.Task[Any] | None) -> None:
        if method.is_ours:
            self._ours -= 1
            if not self._ours:
                self._idle.set()
        elif task is not None:
            self._others.discard(task)


@asynccontextmanager
async def _closing(message: Any) -> AsyncIterator[Any]:
    """A request, or a stream of requests whose memory is given back at the end, however far it was read."""
    try:
        yield message
    finally:
        if inspect.isasyncgen(message):
            await message.aclose()


def _parser(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    """Bytes of a request to its message; raises InvalidInputError where they are none."""
    message = getattr(getattr(deserialize, "__self__", None), "DESCRIPTOR", None)

    def parse(data: bytes) -> Any:
        if message is not None:
            check_outline(data, message)
        try:
            return data if deserialize is None else deserialize(data)
        except Exception as error:
            given = f"{len(data):,} bytes that cannot be parsed"
            raise invalid_input("request", given, "a message of the method's request type") from error

    return parse


def _code(context: Context) -> grpc.StatusCode:
    code: object = context.code()  # an int where the handler has set none
    return code if isinstance(code, grpc.StatusCode) else _CODES.get(int(str(code or 0)), grpc.StatusCode.UNKNOWN)


def _why_cancelled(context: Context) -> grpc.StatusCode:
    over = is_over(context.time_remaining())
    return grpc.StatusCode.DEADLINE_EXCEEDED if over else grpc.StatusCode.CANCELLED


def _log(method: _Method, code: grpc.StatusCode, reason: str, seconds: float) -> None:
    level = logging.DEBUG if not method.is_ours else logging.INFO if code in _ORDINARY else logging.WARNING
    extra = {"grpc_code": code.name, "seconds": round(seconds, 6)}
    logger.log(level, "call ended%s%s", ": " if reason else "", reason, extra=extra)
