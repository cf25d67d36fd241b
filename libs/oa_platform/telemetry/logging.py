"""Structured logs: one line per record on stdout, with request and trace id, without secrets.

    _log = structlog.get_logger(__name__)
    _log.info("run_created", run_id=run_id)

An event's name is a constant in snake_case; everything that varies is in its fields. Records of the standard
library's loggers (uvicorn, asyncio, httpx) go the same way.
"""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache, lru_cache
from typing import Any, TextIO

import structlog
from opentelemetry import trace

from oa_base.visible import LAYOUT, visible
from oa_platform.config.shared import LogSettings
from oa_platform.telemetry.context import current_request_id
from oa_platform.telemetry.lines import Event, Lines

REDACTED = "[redacted]"
_SECRET_KEY = re.compile(
    r"(^|[_-])(token|secret|password|passwd|authorization|cookie|dsn|api_key|private_key|database_url)$", re.IGNORECASE
)
_SECRET_VALUE = re.compile(
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"  # a JWT
    r"|oak_[A-Za-z0-9_-]{43}"  # an API key
    r"|ort_[0-9A-HJKMNP-TV-Z]{26}\.[0-9]+\.[A-Za-z0-9_-]{43}"  # a refresh token
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"  # user:password in a URL
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----",
    re.DOTALL,
)
# Each of those has one of these, and looking for these takes a tenth of the time.
_SECRET_MARKS = ("eyJ", "oak_", "ort_", "://", "-----BEGIN ")
# Chatty below warning, and of no use to operators.
_QUIET = ("httpx", "httpcore", "asyncio", "uvicorn.error", "uvicorn.access")

# Where the standard processors put tracebacks.
_WITH_LINES = ("exception", "stack")
# Says again and again, with a traceback, that it could not connect; `oa_platform.postgres.pool` says it once.
_SILENT = ("asyncpg.pool",)
# The logger of gRPC's servers, and its error when a client is gone before it has been answered.
_GRPC = "grpc._cython.cygrpc"
_CALLER_GONE = "ExecuteBatchError"

_JSON = json.JSONEncoder(sort_keys=True, default=str)
_REMEMBERED_KEYS = 1024


def configure_logging(settings: LogSettings, service: str, stream: TextIO | None = None) -> None:
    """Set up logging for the process; `stream` is stdout unless given.

    Our own records don't go through the handlers of the standard library's loggers, because a record that does costs
    twice as much, and a busy service writes one for each call.
    """
    target = stream or sys.stdout
    if isinstance(target, io.TextIOWrapper):
        target.reconfigure(errors="backslashreplace")  # no record is lost to a character that the locale lacks
    lines = Lines(target, _rendering(settings, service))
    structlog.configure(
        processors=[_capture],
        logger_factory=cache(lambda *names: _Logger(lines, *names)),
        wrapper_class=structlog.make_filtering_bound_logger(settings.level),
        cache_logger_on_first_use=False,
    )
    foreign: list[structlog.types.Processor] = [
        _add_call,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
    ]
    render: list[structlog.types.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        _add_service(service),
        *_render(settings),
    ]
    handler = _Handler(lines)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=foreign, processors=render))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.ERROR)
    grpc = logging.getLogger(_GRPC)
    grpc.filters = [_CallersGone()]


class _Logger:
    """Takes the records of one logger."""

    def __init__(self, lines: Lines, name: str = "") -> None:
        self.name = name
        self.debug = self.info = lines.add
        self.warning = self.error = self.critical = lines.add_at_once


class _Handler(logging.Handler):
    """Takes the records of the standard library's loggers."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - as every handler of the standard library does
            self.handleError(record)
        else:
            self._lines.write(line)


class _CallersGone(logging.Filter):
    """Makes an everyday record of what gRPC reports as an error with a traceback: its core took no answer to a call, as
    when the client has just gone away."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the record; False if its new level is not logged."""
        error = record.exc_info[1] if record.exc_info else None
        if type(error).__name__ != _CALLER_GONE:
            return True
        record.detail = record.getMessage()
        record.msg, record.args, record.exc_info = "grpc_caller_gone", (), None
        record.levelno, record.levelname = logging.INFO, "INFO"
        return logging.getLogger(record.name).isEnabledFor(record.levelno)


def _capture(logger: _Logger, method: str, event: Event) -> tuple[tuple[Event], dict[str, Any]]:
    """Add what is known only now to a record. The rest is added when the record is rendered."""
    _add_call(logger, method, event)
    event["level"] = method
    if logger.name:
        event["logger"] = logger.name
    return (event,), {}


def _rendering(settings: LogSettings, service: str) -> Callable[[Event], str]:
    processors = [_add_service(service), *_render(settings)]

    def shown(event: Event) -> str:
        value: Any = event
        for processor in processors:
            value = processor(None, "", value)
        return str(value)

    def render(event: Event) -> str:
        name = str(event.get("event"))
        try:
            return shown(event)
        except Exception as error:  # noqa: BLE001 - a value that can't be shown must end neither the work nor other records
            about = {"event": "record_not_shown", "of": name, "error": type(error).__name__}
            return shown({**about, "level": "error", "timestamp": time.time()})

    return render


def _render(settings: LogSettings) -> list[structlog.types.Processor]:
    first: list[structlog.types.Processor] = [structlog.processors.format_exc_info, redact]
    if settings.format == "console":
        colors = sys.stdout.isatty()
        people = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
        return [*first, make_visible, people]
    return [*first, _as_json]


def _as_json(_logger: object, _method: str, event: Event) -> str:
    return _JSON.encode(event)


def make_visible(_logger: object, _method: str, event: Event) -> Event:
    """The record with texts that are safe for a terminal; only a traceback has several lines."""
    return {visible(key): _visible(value, LAYOUT if key in _WITH_LINES else "") for key, value in event.items()}


def _visible(value: object, layout: str) -> object:
    if isinstance(value, str):
        return visible(value, layout)
    shown = visible(repr(value))
    return value if shown == repr(value) else shown


def _add_call(_logger: object, _method: str, event: Event) -> Event:
    """Add the time, and the call that the record is about."""
    event["timestamp"] = time.time()
    request_id = current_request_id()
    if request_id:
        event.setdefault("request_id", request_id)
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event["trace_id"] = trace.format_trace_id(span.trace_id)
        event["span_id"] = trace.format_span_id(span.span_id)
    return event


def _add_service(service: str) -> structlog.types.Processor:
    """Add the service, and write the time as RFC 3339 has it."""

    def add(_logger: object, _method: str, event: Event) -> Event:
        event["service"] = service
        at = datetime.fromtimestamp(event["timestamp"], UTC)
        event["timestamp"] = at.isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
        return event

    return add


def redact(_logger: object, _method: str, event: Event) -> Event:
    """Remove secrets from a record: fields with the name of a secret, and anything in a text that looks like one."""
    return {key: _clean(key, value) for key, value in event.items()}


@lru_cache(_REMEMBERED_KEYS)
def _names_a_secret(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None


def _clean(key: str, value: object) -> object:
    if value and _names_a_secret(key):
        return REDACTED
    if isinstance(value, str):
        jwt, api_key, refresh, url, pem = _SECRET_MARKS
        marked = jwt in value or api_key in value or refresh in value or url in value or pem in value
        return _SECRET_VALUE.sub(REDACTED, value) if marked else value
    if isinstance(value, dict):
        return {inner_key: _clean(str(inner_key), inner) for inner_key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean("", inner) for inner in value]
    return value
