"""Channels: the client's settings and the server's fit, and proxies of the environment do not stand before loopback."""

import asyncio
import os
from functools import partial

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detex_core import channel
from detex_core.channel import client_options, is_on_this_machine, proxy_variable, server_options
from tests.core.running_server import running

HERE = (
    "127.0.0.1:50051",
    "127.8.9.10:1",
    "localhost:50051",
    "LOCALHOST:50051",
    "localhost",
    "trainer.localhost:1",
    "[::1]:50051",
    "::1",
    "0.0.0.0:50051",
    "[::]:50051",
    "[::ffff:127.0.0.1]:5",
    "ipv4:127.0.0.1:50051",
    "ipv6:[::1]:50051",
    "dns:localhost:50051",
    "dns:///localhost:50051",
    "dns://8.8.8.8/localhost:50051",
    "unix:/run/detex.sock",
    "unix:///run/detex.sock",
    "unix-abstract:detex",
    "http://localhost:4317",
    "https://127.0.0.1:6443/api",
    "http://user:secret@127.0.0.1:4317",
)
ELSEWHERE = (
    "trainer:50051",
    "localhost.example:1",
    "127.0.0.1.example:1",
    "10.0.0.1:50051",
    "[2001:db8::1]:50051",
    "dns:///trainer.detex.svc:50051",
    "dns://127.0.0.1/trainer:50051",
    "http://collector:4317",
    "https://10.96.0.1:443",
    "",
)


@pytest.mark.parametrize("address", HERE)
def test_this_machine_is_known_by_all_its_names(address: str) -> None:
    assert is_on_this_machine(address)
    assert ("grpc.enable_http_proxy", 0) in client_options(address)
    assert proxy_variable(address, {"http_proxy": "http://proxy:3128"}) == ""


@pytest.mark.parametrize("address", ELSEWHERE)
def test_other_machines_are_not_this_one(address: str) -> None:
    assert not is_on_this_machine(address)
    assert "grpc.enable_http_proxy" not in dict(client_options(address))


@given(st.text(max_size=40))
def test_no_address_is_too_odd_to_ask_about(address: str) -> None:
    assert isinstance(is_on_this_machine(address), bool)
    assert isinstance(proxy_variable(address, {"http_proxy": "http://proxy:3128"}), str)


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, ""),
        ({"http_proxy": "http://p"}, "http_proxy"),
        ({"http_proxy": "http://p", "https_proxy": "http://p"}, "https_proxy"),
        ({"https_proxy": "http://p", "grpc_proxy": "http://p"}, "grpc_proxy"),
        ({"http_proxy": "http://p", "no_proxy": "example.com, detex.svc"}, ""),
        ({"http_proxy": "http://p", "no_proxy": "detex.svc", "no_grpc_proxy": "other"}, "http_proxy"),
        ({"http_proxy": ""}, ""),
    ],
)
def test_the_proxy_that_stands_before_another_host_is_named(environment: dict[str, str], name: str) -> None:
    assert proxy_variable("dns:///trainer.detex.svc:50051", environment) == name


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_loopback_is_reached_whatever_proxy_is_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        async with running() as run:
            for address in (run.server.address, run.server.address.replace("127.0.0.1", "localhost")):
                async with grpc.aio.insecure_channel(address, client_options(address)) as here:
                    call = here.unary_unary("/grpc.health.v1.Health/Check")
                    await call(b"", timeout=20, wait_for_ready=True)

    for each in [each for each in os.environ if each.lower().endswith("_proxy")]:
        monkeypatch.delenv(each)
    monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    asyncio.run(scenario())


def test_an_idle_connection_that_pings_as_often_as_is_allowed_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC pings once a second at most, and a connection that pings too often is ended at its third ping."""
    options = partial(server_options, shortest_ping_seconds=0.1)
    monkeypatch.setattr("detex_core.grpc_server.server.server_options", options)

    async def scenario() -> None:
        async with running() as run:
            address = run.server.address
            async with grpc.aio.insecure_channel(address, client_options(address, ping_seconds=1.0)) as idle:
                await idle.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=20)
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(idle.wait_for_state_change(grpc.ChannelConnectivity.READY), 5)

    asyncio.run(scenario())


def test_what_the_client_does_is_what_the_server_allows() -> None:
    assert channel.PING_SECONDS > channel.SHORTEST_PING_SECONDS
    served, called = dict(server_options(1)), dict(client_options("trainer:50051"))
    assert served["grpc.http2.min_ping_interval_without_data_ms"] == 1000 * channel.SHORTEST_PING_SECONDS
    assert served["grpc.keepalive_permit_without_calls"] == called["grpc.keepalive_permit_without_calls"] == 1
