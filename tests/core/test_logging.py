"""Log records as lines."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from detex_core.logging import configure_logging, log_fields
from detex_core.settings import ServiceSettings
from detex_core.tenancy import tenant_scope


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def configured(stream: io.StringIO, **changes: Any) -> logging.Logger:
    configure_logging(ServiceSettings(**changes), stream=stream)
    return logging.getLogger("detex.test")


def test_json_lines_carry_tenant_and_fields() -> None:
    stream = io.StringIO()
    logger = configured(stream)
    with tenant_scope("acme"), log_fields(request_id="r1"):
        logger.info("drawn %d pictures\nin two lines", 3, extra={"seconds": 0.5, "loss": float("nan"), "path": {1}})
    logger.info("outside")
    first, second = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert first["message"] == "drawn 3 pictures\nin two lines"
    assert (first["level"], first["logger"], first["tenant"]) == ("INFO", "detex.test", "acme")
    assert (first["request_id"], first["seconds"], first["loss"], first["path"]) == ("r1", 0.5, "nan", "{1}")
    assert first["time"].endswith("Z")
    assert "tenant" not in second
    assert "request_id" not in second


def test_exceptions_stay_on_their_line() -> None:
    stream = io.StringIO()
    logger = configured(stream)
    try:
        raise KeyError("lost")
    except KeyError:
        logger.exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "KeyError: 'lost'" in json.loads(line)["exception"]


FORGED = "x\n02:00:00 CRITICAL detex_trainer.server: admin logged in\x1b[2J\u2028y\u202ez\ud800"


def test_callers_forge_no_lines_of_text() -> None:
    stream = io.StringIO()
    logger = configured(stream, log_format="text")
    with log_fields(request_id=FORGED):
        logger.warning("refused %s", FORGED, extra={"token": FORGED})
    try:
        raise ValueError(FORGED)
    except ValueError:
        logger.exception("failed")
    first, *others = stream.getvalue().splitlines()
    assert first.count("admin logged in") == 3
    assert not any(line.startswith("02:00:00") for line in (first, *others))
    assert not set("\x1b\u2028\u202e\ud800") & set(stream.getvalue())
    assert "x\\n02:00:00 CRITICAL" in first
    stream.getvalue().encode()


def test_lines_are_bounded_and_can_be_written_whatever_they_hold() -> None:
    for log_format in ("json", "text"):
        stream = io.StringIO()
        configured(stream, log_format=log_format).info(
            "%s", "a" * 10**7, extra={"field": ["b" * 10**6], "odd": "\ud800"}
        )
        line = stream.getvalue()
        assert len(line) < 12_000
        assert "(10,000,000 characters)" in line
        line.encode()
        if log_format == "json":
            assert json.loads(line)["odd"]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_credentials_stay_out_of_logs(log_format: str) -> None:
    stream = io.StringIO()
    logger = configured(stream, log_format=log_format)
    header = "AWS4-HMAC-SHA256 Credential=AKIAEVIL/20260101/us-east-1/s3, SignedHeaders=host, Signature=deadbeef"
    try:
        raise ValueError(f"Invalid header value b'{header}'")
    except ValueError:
        logger.exception("asked with %s and Bearer abc.def", header)
    text = stream.getvalue()
    assert "asked with" in text
    for secret in ("AKIAEVIL", "deadbeef", "abc.def"):
        assert secret not in text


def test_terminals_get_text_unless_told_otherwise() -> None:
    text = Terminal()
    configured(text).info("ready", extra={"address": "127.0.0.1:1"})
    assert text.getvalue().rstrip().endswith("INFO    detex.test: ready address=127.0.0.1:1")
    as_json = Terminal()
    configured(as_json, log_format="json").info("ready")
    assert json.loads(as_json.getvalue())["message"] == "ready"
    as_text = io.StringIO()
    configured(as_text, log_format="text").info("ready")
    assert "detex.test: ready" in as_text.getvalue()


def test_levels() -> None:
    stream = io.StringIO()
    logger = configured(stream, log_level="WARNING")
    logger.info("quiet")
    logger.warning("loud")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == ["loud"]


def test_fields_cannot_take_the_place_of_what_every_line_has() -> None:
    stream = io.StringIO()
    configured(stream).info("real", extra={"level": "fake", "time": "fake"})
    content = json.loads(stream.getvalue())
    assert content["level"] == "INFO"
    assert content["time"] != "fake"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp932"])
def test_json_stays_json_in_every_encoding(encoding: str) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace", write_through=True)
    configure_logging(ServiceSettings(log_format="json"), stream=stream)
    logging.getLogger("detex.test").info("café 写真 😀 \ud800")
    line = stream.buffer.getvalue()  # type: ignore[attr-defined]
    assert json.loads(line.decode(encoding))["message"] == "café 写真 😀 \ud800"
