"""The port of metrics and probes: few threads whoever connects, and probes that get through."""

import asyncio
import socket
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from detex_core.grpc_server import Server
from detex_core.metrics import MOST_CONNECTIONS, MetricsServer, new_registry
from detex_protos.v1 import generator_pb2
from tests.core.running_server import details, running, settings
from tests.core.sample_services import SampleGenerator, always_ready, sample_services


def answer(address: str, path: str) -> int:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as found:
        return int(found.status)


def test_connections_that_say_nothing_give_way() -> None:
    before = set(threading.enumerate())
    with MetricsServer("127.0.0.1:0", new_registry("test")) as server:
        host, port = server.address.split(":")
        silent = []
        for _ in range(400):
            connection = socket.create_connection((host, int(port)), 30)
            connection.sendall(b"GET /metrics HTTP/1.1\r\n")
            silent.append(connection)
        for path in ("/healthz", "/readyz", "/metrics"):
            assert answer(server.address, path) == 200
        # Each that was broken off ends a thread; the server's own is one more.
        for connection in silent[: 400 - MOST_CONNECTIONS]:
            assert connection.recv(1) == b""
        for thread in set(threading.enumerate()) - before:
            # Those of broken connections are about to end; up to the limit go on waiting for their callers.
            if len(set(threading.enumerate()) - before) > MOST_CONNECTIONS + 1:
                thread.join(10)
        assert len(set(threading.enumerate()) - before) <= MOST_CONNECTIONS + 1
        for connection in silent:
            connection.close()


def test_what_is_no_http_costs_only_itself() -> None:
    with MetricsServer("127.0.0.1:0", new_registry("test")) as server:
        host, port = server.address.split(":")
        for sent in (b"\x16\x03\x01\x02\x00\x01", b"GET /\r\n\r\n", b"GET " + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n"):
            with socket.create_connection((host, int(port)), 30) as connection:
                connection.sendall(sent)
        assert answer(server.address, "/healthz") == 200


def test_scrapes_side_by_side_are_all_answered() -> None:
    with MetricsServer("127.0.0.1:0", new_registry("test")) as server:
        found: list[int] = []
        threads = [
            threading.Thread(target=lambda: found.append(answer(server.address, "/metrics")))
            for _ in range(MOST_CONNECTIONS // 2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [200] * (MOST_CONNECTIONS // 2)


def test_liveness_is_that_of_the_event_loop() -> None:
    may_go_on, blocked = threading.Event(), threading.Event()

    def block() -> None:
        blocked.set()
        assert may_go_on.wait(60)

    def code(address: str, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def until(address: str, path: str, wanted: int) -> None:
        end = time.monotonic() + 60
        while code(address, path) != wanted:
            assert time.monotonic() < end, f"{path} never answered {wanted}"

    async def scenario() -> None:
        async with running(liveness_seconds=1.0) as run:
            address = run.server.metrics_address
            await asyncio.to_thread(until, address, "/readyz", 200)
            assert await asyncio.to_thread(code, address, "/healthz") == 200

            def watch() -> None:
                assert blocked.wait(60)
                try:
                    until(address, "/healthz", 503)
                    until(address, "/readyz", 503)
                finally:
                    may_go_on.set()

            watching = asyncio.create_task(asyncio.to_thread(watch))
            await asyncio.sleep(0)
            block()
            await watching
            await asyncio.to_thread(until, address, "/healthz", 200)
            await asyncio.to_thread(until, address, "/readyz", 200)

    asyncio.run(scenario())


async def answers(call: Any) -> bool:
    """Whether a call begins to answer; it is given up then."""
    try:
        await call.read()
    except grpc.aio.AioRpcError:
        return False
    call.cancel()
    return True


def test_large_messages_share_their_memory() -> None:
    async def scenario() -> None:
        async with running(message_memory_bytes=1) as run:
            large = generator_pb2.GenerateRequest(prompt="wait", negative_prompt="x" * 2_000_000, count=1)
            holding = run.generator.Generate(large, timeout=60)
            await holding.read()
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await run.generator.Generate(large, timeout=60).read()
            assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details(raised.value)[ErrorInfo].reason == "MESSAGE_MEMORY"
            await run.prefetch("plain")  # small ones need none
            holding.cancel()
            async with asyncio.timeout(60):
                await run.handlers.ended.wait()
                while not await answers(run.generator.Generate(large, timeout=60)):
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())


def test_metrics_are_served_until_the_last_work_is_done() -> None:
    """What is counted while a service ends can be scraped."""

    async def scenario() -> None:
        registry = new_registry("sample")
        server = Server(settings(), sample_services(SampleGenerator(), always_ready), registry)
        codes: list[int] = []

        async def last_work() -> None:
            codes.append(await asyncio.to_thread(answer, server.metrics_address, "/metrics"))
            codes.append(await asyncio.to_thread(answer, server.metrics_address, "/healthz"))

        await server.start()
        server.request_drain()
        await server.run(last_work)
        assert codes == [200, 200]
        with pytest.raises(urllib.error.URLError):
            answer(server.metrics_address, "/metrics")

    asyncio.run(scenario())
