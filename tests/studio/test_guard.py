"""Who may ask for what: hosts, origins, sizes, paths; and what answers say about themselves."""

import socket
from pathlib import Path

import pytest

from tests.studio.conftest import Studio, running_studio

EVIL = {"Origin": "http://evil.example"}


def test_the_page_is_its_own_and_asks_nobody_else(alone: Studio) -> None:
    answer = alone.send("GET", "/")
    assert answer.status == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    for path in [*(Path(__file__).parents[2] / "services/studio/detex_studio/page").iterdir()]:
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
        assert "http://" not in text, path
        assert "https://" not in text, path
        if path.suffix != ".html":
            assert alone.send("GET", f"/page/{path.name}").status == 200
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "server" not in answer.headers


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost@evil"])
def test_other_names_are_refused(alone: Studio, host: str) -> None:
    for path in ("/", "/api/state", "/page/studio.js"):
        answer = alone.send("GET", path, headers={"Host": host})
        assert answer.status in {400, 421}
        assert b"<html" not in answer.body


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"])
def test_local_names_are_taken(alone: Studio, host: str) -> None:
    assert alone.send("GET", "/api/state", headers={"Host": f"{host}:{alone.port}"}).status == 200


def test_a_configured_name_is_taken(tmp_path: Path) -> None:
    with running_studio(tmp_path, allowed_hosts=("Studio.example",)) as studio:
        assert studio.send("GET", "/api/state", headers={"Host": "studio.example"}).status == 200
        assert studio.send("GET", "/api/state", headers={"Host": "other.example"}).status == 421
        assert studio.send("GET", "/healthz", headers={"Host": "10.0.0.7:8080"}).body == b"ok"


@pytest.mark.parametrize("headers", [EVIL, {"Origin": None}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/jobs"),
        ("DELETE", "/api/products/mug"),
        ("PATCH", "/api/pictures/00"),
        ("PUT", "/api/sets/a/masks/0"),
    ],
)
def test_other_origins_change_nothing(alone: Studio, headers: dict[str, str | None], method: str, path: str) -> None:
    answer = alone.send(method, path, {}, headers=headers)  # type: ignore[arg-type]
    assert (answer.status, answer.json()["reason"]) == (403, "OTHER_ORIGIN")


def test_other_sites_read_nothing_but_may_link_to_the_page(alone: Studio) -> None:
    across = {"Sec-Fetch-Site": "cross-site"}
    assert alone.send("GET", "/", headers=across).status == 200
    assert alone.send("GET", "/api/state", headers=across).status == 403


def test_large_bodies_are_refused_before_and_while_they_come(tmp_path: Path) -> None:
    with running_studio(tmp_path, max_upload_bytes=1024**2) as studio:
        told = studio.send("POST", "/api/photos", headers={"Content-Length": str(10**9)})
        assert (told.status, told.json()["reason"]) == (413, "UPLOAD_TOO_LARGE")
        with socket.create_connection(("127.0.0.1", studio.port), 30) as connection:
            head = (
                f"POST /api/photos HTTP/1.1\r\nHost: 127.0.0.1:{studio.port}\r\nOrigin: {studio.address}\r\n"
                "Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            connection.sendall(head.encode())
            start = b'--b\r\nContent-Disposition: form-data; name="photos"; filename="a.png"\r\n\r\n'
            connection.sendall(f"{len(start):x}\r\n".encode() + start + b"\r\n")
            chunk = b"10000\r\n" + b"\0" * 0x10000 + b"\r\n"
            answer = b""
            try:
                for _ in range(40):
                    connection.sendall(chunk)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused while it came
            connection.settimeout(30)
            answer = connection.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "path",
    [
        "/page/../settings.py",
        "/page/..%2fsettings.py",
        "/page/%2e%2e/settings.py",
        "/api/pictures/..%2f..%2fstudio.sqlite",
        "/api/pictures/../studio.png",
        "/api/sets/..%2f..%2f/photos/0",
        "/api/sets/a.b/photos/0",
        "/api/products/%00/pictures",
        "/api/nothing",
    ],
)
def test_paths_lead_nowhere_else(alone: Studio, path: str) -> None:
    answer = alone.send("GET", path)
    assert answer.status == 404
    assert answer.json()["reason"] == "NOT_FOUND"


def test_absent_services_are_told_without_traces(alone: Studio) -> None:
    state = alone.get("/api/state")
    assert (state["trainer"], state["generator"]) == (False, False)
    answer = alone.send("GET", "/api/products")
    assert (answer.status, answer.json()["reason"]) == (503, "UNAVAILABLE")
    assert b"Traceback" not in answer.body
    for body in (b"{", b"[]", b"\xff"):
        wrong = alone.send("POST", "/api/jobs", body)
        assert (wrong.status, wrong.json()["reason"]) == (400, "INVALID_INPUT")
    assert alone.send("POST", "/api/state").status == 405
