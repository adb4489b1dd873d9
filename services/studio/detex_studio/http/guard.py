"""What every request has to pass: a known host, the page's own origin, a bounded body; and the headers of answers.

There are no cookies to steal, but a page that listens on loopback can be reached by every site that its user visits.
Requests that change something therefore need the `Origin` of the page itself, and names that are not the page's are
refused, so that a foreign name which is made to point here (DNS rebinding) reads nothing either.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from detex_studio.errors import StudioError, as_document

HEALTH_PATH = "/healthz"
SMALL_BODY_BYTES = 8 * 1024**2
_SAFE_METHODS = {"GET", "HEAD"}
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
_SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Guard:
    """Middleware around the whole of Studio.

    Args:
        application: What it guards.
        hosts: Names under which the page may be asked for, without ports.
        upload_path: Where photos are sent to.
        max_upload_bytes: Largest body there; elsewhere it is 8 MiB.
    """

    def __init__(self, application: ASGIApp, *, hosts: Iterable[str], upload_path: str, max_upload_bytes: int) -> None:
        self._application = application
        self._hosts = frozenset((*_LOCAL_HOSTS, *hosts))
        self._upload_path = upload_path
        self._max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _SECURITY_HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            self._check(scope)
        except StudioError as error:
            await JSONResponse(as_document(error), error.status)(scope, receive, send_with_headers)
            return
        limit = self._max_upload_bytes if scope["path"] == self._upload_path else SMALL_BODY_BYTES
        await self._application(scope, _Bounded(receive, limit).receive, send_with_headers)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if scope["path"] == HEALTH_PATH:  # probes of Kubernetes name the address of the pod
            return
        host = headers.get("host", "")
        if _name(host) not in self._hosts:
            raise StudioError(421, "UNKNOWN_HOST", f"Host: must be one that is configured, got {host[:200]!r}")
        site = headers.get("sec-fetch-site", "none")
        is_page = scope["path"] == "/"  # a link from elsewhere may lead to the page itself
        if site not in {"same-origin", "none"} and not (is_page and scope["method"] in _SAFE_METHODS):
            raise StudioError(403, "OTHER_ORIGIN", "The request comes from another site.")
        if scope["method"] not in _SAFE_METHODS:
            origin = headers.get("origin", "")
            if urlsplit(origin).netloc.lower() != host.lower():
                raise StudioError(403, "OTHER_ORIGIN", f"Origin: must be that of the page, got {origin[:200]!r}")
        length = headers.get("content-length", "0")
        limit = self._max_upload_bytes if scope["path"] == self._upload_path else SMALL_BODY_BYTES
        if not length.isdecimal() or int(length) > limit:
            raise too_large(limit)


def too_large(limit: int) -> StudioError:
    """The error for a body above its limit."""
    return StudioError(413, "UPLOAD_TOO_LARGE", f"The request must be at most {limit // 1024**2} MiB.")


class _Bounded:
    """A body that ends with an error where it goes on beyond its limit, for those that name no length."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._received = 0

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            if self._received > self._limit:
                raise too_large(self._limit)
        return message


def _name(host: str) -> str:
    """The name in a Host header, in small letters, without port and brackets."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""
