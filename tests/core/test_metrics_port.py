"""The port of metrics and probes: few threads whoever connects, and probes that get through."""

import socket
import threading
import urllib.request

from detex_core.metrics import MOST_CONNECTIONS, MetricsServer, new_registry


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
