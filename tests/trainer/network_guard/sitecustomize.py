"""Makes every Python process that starts with this folder on its path refuse all addresses but loopback."""

import ipaddress
import sys


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event not in {"socket.connect", "socket.sendto", "socket.getaddrinfo"}:
        return
    if event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        address = arguments[1]
        if not isinstance(address, tuple):
            return  # a socket of this machine
        host = address[0]
    text = host.decode() if isinstance(host, bytes) else str(host or "localhost")
    try:
        allowed = ipaddress.ip_address(text).is_loopback
    except ValueError:
        allowed = text == "localhost"
    if not allowed:
        raise OSError(f"blocked: {event} to {text}")


sys.addaudithook(_refuse)
