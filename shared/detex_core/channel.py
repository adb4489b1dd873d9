"""Settings of gRPC channels: what the client sets and what the servers allow, which must fit each other.

A caller may ping an idle connection every `SHORTEST_PING_SECONDS` at most; a server ends the connection of one that
pings more often (`too_many_pings`). The client and the servers themselves ping every `PING_SECONDS`, calls or none, so
that either notices when the other has vanished without a word, and middleboxes keep the connection open.
"""

import ipaddress
import os
from collections.abc import Mapping
from typing import Final

PING_SECONDS: Final = 60.0
PING_TIMEOUT_SECONDS: Final = 20.0
SHORTEST_PING_SECONDS: Final = 5.0
MAX_RECEIVED_MESSAGE_BYTES: Final = 128 * 1024 * 1024
"""Of the client; servers have a setting."""
MAX_REQUEST_BYTES: Final = 34 * 1024 * 1024
"""Of a message that a server takes: the largest files of a request, 32 MiB together, and the rest of it."""

Option = tuple[str, int | str]

# In the order in which gRPC looks for them.
_PROXIES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
_EXEMPTIONS: Final = ("no_grpc_proxy", "no_proxy")


def client_options(
    address: str, *, ping_seconds: float = PING_SECONDS, max_message_bytes: int = MAX_RECEIVED_MESSAGE_BYTES
) -> list[Option]:
    """Options of a channel to `address`, which no proxy stands before where it is on this machine."""
    options: list[Option] = [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),  # the server's bound holds, and says so
        *_pings(ping_seconds),
        ("grpc.http2.max_pings_without_data", 0),  # as often as the above says, whether data flows or not
    ]
    return options + direct_options(address)


def server_options(
    max_message_bytes: int,
    *,
    ping_seconds: float = PING_SECONDS,
    shortest_ping_seconds: float = SHORTEST_PING_SECONDS,
) -> list[Option]:
    """Options of a server that callers with `client_options` stay connected to."""
    return [
        ("grpc.max_receive_message_length", min(max_message_bytes, MAX_REQUEST_BYTES)),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.so_reuseport", 0),  # a second server on the same port is a mistake
        *_pings(ping_seconds),
        ("grpc.http2.min_ping_interval_without_data_ms", round(1000 * shortest_ping_seconds)),
    ]


def direct_options(address: str) -> list[Option]:
    """Options by which a channel to this machine passes by the proxies of the environment; none for other hosts."""
    return [("grpc.enable_http_proxy", 0)] if is_on_this_machine(address) else []


def is_on_this_machine(address: str) -> bool:
    """Whether an address (`host:port`, a gRPC target or a URL) is a loopback address or a socket of this machine."""
    scheme, _, rest = address.rpartition("://") if "://" in address else ("", "", address)
    if scheme.startswith("unix") or address.startswith(("unix:", "unix-abstract:")):
        return True
    for prefix in ("dns:", "ipv4:", "ipv6:"):
        rest = rest.removeprefix(prefix)
    rest = rest.lstrip("/").rpartition("/")[2] if scheme == "dns" else rest.lstrip("/").partition("/")[0]
    host = _host(rest).lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return found.is_loopback or found.is_unspecified or (mapped is not None and mapped.is_loopback)


def is_loopback(address: str) -> bool:
    """Whether a server that listens on `host:port` can be reached from this machine alone."""
    host = _host(address).lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def proxy_variable(address: str, environment: Mapping[str, str] = os.environ) -> str:
    """Name of the environment variable whose proxy gRPC takes to an address; empty where it takes none."""
    if is_on_this_machine(address):
        return ""
    host = _host(address.rpartition("/")[2])
    exempt = next((environment[name] for name in _EXEMPTIONS if environment.get(name)), "")
    if any(host.endswith(suffix) for suffix in (each.strip() for each in exempt.split(",")) if suffix):
        return ""
    return next((name for name in _PROXIES if environment.get(name)), "")


def _pings(seconds: float) -> list[Option]:
    return [
        ("grpc.keepalive_time_ms", round(1000 * seconds)),
        ("grpc.keepalive_timeout_ms", round(1000 * PING_TIMEOUT_SECONDS)),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def _host(place: str) -> str:
    """The host of `host:port`, `[v6]:port`, or either without a port."""
    place = place.rpartition("@")[2]
    if place.startswith("["):
        return place[1:].partition("]")[0]
    return place if place.count(":") > 1 else place.partition(":")[0]
