"""Logs: one JSON object per line for machines, plain lines on terminals."""

import codecs
import json
import logging
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from detex_core.log_text import (
    LONGEST_FIELD,
    LONGEST_MESSAGE,
    LONGEST_TRACEBACK,
    indented,
    one_line,
    shortened,
    without_credentials,
)
from detex_core.tenancy import tenant_in_scope

if TYPE_CHECKING:
    from detex_core.settings import ServiceSettings

LogValue = str | int | float | bool | None

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_fields: ContextVar[Mapping[str, LogValue]] = ContextVar("detex_log_fields", default={})  # noqa: B039


def configure_logging(settings: "ServiceSettings", *, stream: TextIO | None = None) -> None:
    """Send all records of this process to one stream, standard error where none is given.

    Args:
        settings: `log_level`, and `log_format` (`auto` writes text where the stream is a terminal, else JSON).
        stream: Where to.
    """
    target = stream or sys.stderr
    as_text = settings.log_format == "text" or (settings.log_format == "auto" and target.isatty())
    handler = logging.StreamHandler(target)
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter(ascii_only=not _is_utf8(target)))
    logging.basicConfig(handlers=[handler], level=settings.log_level, force=True)
    logging.captureWarnings(True)


def add_log_fields(**fields: LogValue) -> None:
    """Add fields to all further records of the running task, for example `request_id`."""
    _fields.set({**_fields.get(), **fields})


@contextmanager
def log_fields(**fields: LogValue) -> Iterator[None]:
    """Add fields to all records within a `with` block."""
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, logger, message, tenant, fields, and the traceback of an exception.

    Args:
        ascii_only: Whether other characters become escapes of JSON: on streams of other encodings than UTF-8, whose own
            escapes JSON does not know.
    """

    def __init__(self, *, ascii_only: bool = False) -> None:
        super().__init__()
        self._ascii_only = ascii_only

    def format(self, record: logging.LogRecord) -> str:
        """The record on one line."""
        content: dict[str, object] = {
            "time": _time(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": without_credentials(shortened(record.getMessage(), LONGEST_MESSAGE)),
        }
        content.update((name, _json_value(value)) for name, value in _extra(record).items() if name not in content)
        if record.exc_info:
            exception = without_credentials(self.formatException(record.exc_info))
            content["exception"] = shortened(exception, LONGEST_TRACEBACK)
        line = json.dumps(content, ensure_ascii=self._ascii_only, default=str)
        # Halves of characters, which no encoding can write, become escapes of JSON.
        return line.encode("utf-8", "backslashreplace").decode()


class TextFormatter(logging.Formatter):
    """Plain lines: time, level, logger, message, fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The record on one line, with the traceback of an exception below it, indented."""
        extra = "".join(f" {name}={one_line(str(value), LONGEST_FIELD)}" for name, value in _extra(record).items())
        line = f"{_time(record):%H:%M:%S} {record.levelname:<7} {record.name}: {one_line(record.getMessage())}{extra}"
        return f"{line}\n{indented(self.formatException(record.exc_info))}" if record.exc_info else line


def _is_utf8(stream: TextIO) -> bool:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return codecs.lookup(encoding).name == "utf-8"


def _time(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _extra(record: logging.LogRecord) -> dict[str, object]:
    tenant = tenant_in_scope()
    return {
        **({"tenant": tenant} if tenant else {}),
        **_fields.get(),
        **{name: value for name, value in vars(record).items() if name not in _STANDARD},
    }


def _json_value(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    return without_credentials(shortened(str(value), LONGEST_FIELD))
