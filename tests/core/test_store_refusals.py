"""What refusals of an S3 server mean: those that pass by themselves are told from those that do not."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from detex_core.errors import DetexError, PermissionDeniedError, UnavailableError
from detex_core.object_store import open_object_store
from detex_core.settings import ObjectStoreSettings


@contextmanager
def refusing(status: int, code: str, clock: timedelta = timedelta()) -> Iterator[ObjectStoreSettings]:
    """A server that answers everything with an error of S3, by a clock of its own."""

    class Refusal(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode() if code else b""
            self.send_response_only(status)
            self.send_header("Date", format_datetime(datetime.now(UTC) + clock, usegmt=True))
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield ObjectStoreSettings(
            url=f"s3://a-bucket?endpoint=127.0.0.1:{server.server_port}&secure=false",
            access_key="key",
            secret_key="key",
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def error_of(settings: ObjectStoreSettings) -> DetexError:
    with pytest.raises(DetexError) as caught:
        open_object_store(settings).get("photos/1")
    return caught.value


@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", "RequestExpired"])
def test_clocks_that_differ_pass_and_are_named(code: str) -> None:
    with refusing(403, code, timedelta(minutes=23)) as settings:
        error = error_of(settings)
    assert isinstance(error, UnavailableError)
    assert error.reason == "CLOCK_SKEW"
    assert "this machine's clock is 23 minutes behind the store's" in error.message


def test_a_refusal_without_a_word_by_a_far_clock_is_the_clock() -> None:
    with refusing(403, "", timedelta(hours=-2)) as settings, pytest.raises(UnavailableError) as caught:
        open_object_store(settings).stat("photos/1")  # HEAD, whose refusals have no body
    error = caught.value
    assert error.reason == "CLOCK_SKEW"
    assert "120 minutes ahead of" in error.message


@pytest.mark.parametrize("code", ["ExpiredToken", "TokenRefreshRequired"])
def test_credentials_that_have_expired_pass_when_they_are_renewed(code: str) -> None:
    with refusing(403, code) as settings:
        error = error_of(settings)
    assert isinstance(error, UnavailableError)
    assert (error.reason, error.retry_delay_seconds) == ("CREDENTIALS_EXPIRED", 5.0)


@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (400, "RequestTimeout")])
def test_what_the_server_cannot_do_now_passes(status: int, code: str) -> None:
    with refusing(status, code) as settings:
        assert isinstance(error_of(settings), UnavailableError)


@pytest.mark.parametrize("code", ["AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId"])
def test_credentials_that_are_wrong_do_not_pass(code: str) -> None:
    with refusing(403, code) as settings:
        assert isinstance(error_of(settings), PermissionDeniedError)


@pytest.mark.parametrize("key", ["EXAMPLE\n", " EXAMPLE\r\n", "EXAMPLE"])
def test_keys_are_read_as_files_of_secrets_have_them(key: str) -> None:
    settings = ObjectStoreSettings(url="s3://a-bucket", access_key=key, secret_key=key)
    assert settings.access_key is not None
    assert settings.secret_key is not None
    assert settings.access_key.get_secret_value() == settings.secret_key.get_secret_value() == "EXAMPLE"


@pytest.mark.parametrize("key", ["EX\nAMPLE", "EX AMPLE", "鍵", "EX\x00AMPLE"])
def test_keys_that_no_header_carries_are_refused_without_being_told(key: str) -> None:
    with pytest.raises(ValueError, match="must be printable ASCII") as caught:
        ObjectStoreSettings(url="s3://a-bucket", access_key=key, secret_key="EXAMPLE")
    assert key not in str(caught.value)
