"""A record is one line with what is known about the call, and without secrets."""

import asyncio
import importlib
import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, TextIO, TypeVar

import pytest
import structlog

from oa_base.visible import LAYOUT, visible
from oa_platform.config.shared import LogSettings
from oa_platform.telemetry.context import adopt_request_id
from oa_platform.telemetry.logging import REDACTED, configure_logging, redact
from oa_platform.tests.traces import current_trace_id, span
from oa_testing.logs import nothing_collected

T = TypeVar("T", bound=TextIO)
CallerGone: type[Exception] = importlib.import_module("grpc._cython.cygrpc").ExecuteBatchError
JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1c3JfMSJ9.c2lnbmF0dXJl"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A configured log; what was before is put back."""
    yield from _configured("json", io.StringIO())


def _configured(kind: str, out: T, lowest: str = "info") -> Iterator[T]:
    root = logging.getLogger()
    handlers, level, ours = root.handlers, root.level, structlog.get_config()
    with nothing_collected():
        configure_logging(LogSettings(level=lowest, format=kind), "test-service", out)
        yield out
        root.handlers, root.level = handlers, level
        structlog.configure(**ours)


def _records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_what_other_tests_log_with_is_put_back() -> None:
    before = structlog.get_config()
    for _ in _configured("json", io.StringIO()):
        assert structlog.get_config() != before
    assert structlog.get_config() == before


def test_a_record_is_one_json_line(stream: io.StringIO) -> None:
    structlog.get_logger("a.b").info("run_created", run_id="run_1", text="two\nlines")
    (record,) = _records(stream)
    assert record["event"] == "run_created"
    assert (record["run_id"], record["text"], record["service"]) == ("run_1", "two\nlines", "test-service")
    assert (record["level"], record["logger"]) == ("info", "a.b")
    assert record["timestamp"].endswith("Z")


def test_the_level_is_kept(stream: io.StringIO) -> None:
    structlog.get_logger().debug("hidden")
    logging.getLogger("httpx").info("hidden")
    logging.getLogger("other").info("shown %s", 1)
    assert [record["event"] for record in _records(stream)] == ["shown 1"]


def test_request_and_trace_are_in_every_record(stream: io.StringIO) -> None:
    adopt_request_id("req-9")
    with span("work"):
        structlog.get_logger().info("inside")
        logging.getLogger("library").warning("inside too")
        expected = current_trace_id()
    for record in _records(stream):
        assert (record["request_id"], record["trace_id"]) == ("req-9", expected)


def test_a_client_that_went_away_is_no_error_with_a_traceback(stream: io.StringIO) -> None:
    """gRPC logs it as one; what else it logs stays an error."""
    grpc = logging.getLogger("grpc._cython.cygrpc")
    for error in (CallerGone("Failed"), ValueError("broken")):
        try:
            raise error
        except Exception as raised:  # noqa: BLE001 - as gRPC does
            grpc.exception("%s raised by servicer method [/a.B/C]", type(raised).__name__)
    gone, broken = _records(stream)
    assert (gone["event"], gone["level"], "exception" in gone) == ("grpc_caller_gone", "info", False)
    assert gone["detail"] == "ExecuteBatchError raised by servicer method [/a.B/C]"
    assert (broken["level"], "ValueError: broken" in broken["exception"]) == ("error", True)


def test_a_client_that_went_away_is_below_a_higher_level() -> None:
    out = io.StringIO()
    for _ in _configured("json", out, "warning"):
        logging.getLogger("grpc._cython.cygrpc").error("away", exc_info=CallerGone("Failed"))
    assert out.getvalue() == ""


def test_a_traceback_is_in_the_record_without_secrets(stream: io.StringIO) -> None:
    try:
        raise ValueError(f"bad token {JWT} for postgresql://me:geheim@host/db")
    except ValueError as error:
        structlog.get_logger().error("broke", exc_info=error)
    (record,) = _records(stream)
    assert "ValueError: bad token [redacted] for postgresql://[redacted]@host/db" in record["exception"]


@pytest.mark.parametrize(
    "key",
    ["token", "refresh_token", "x-oa-service-token", "Authorization", "password", "api_key", "dsn", "client_secret"],
)
def test_fields_with_secret_names_are_hidden(key: str) -> None:
    event = redact(None, "info", {"event": "x", key: "geheim", "nested": {key: "geheim"}, "list": [{key: "geheim"}]})
    assert "geheim" not in str(event)
    assert event[key] == REDACTED


def test_other_fields_are_shown() -> None:
    event = {"event": "x", "reason": "token_expired", "tokens_per_second": 5, "token": "", "url": "http://host:80/a@b"}
    assert redact(None, "info", dict(event)) == event


@pytest.mark.parametrize(
    "value",
    [
        f"Bearer {JWT}",
        "postgres://me:geheim@host/db",
        "-----BEGIN " + "PRIVATE KEY-----\ngeheim\n-----END " + "PRIVATE KEY-----",
        f"the key oak_{'geheim-' * 6}_ is unknown",
        f"ort_01JD8V0000000000000000000A.7.{'geheim-' * 6}_",
        ["x", f"{JWT}"],
    ],
)
def test_what_looks_like_a_secret_is_hidden_anywhere(value: object) -> None:
    shown = str(redact(None, "info", {"event": "x", "data": value}))
    assert "geheim" not in shown
    assert JWT not in shown
    assert REDACTED in shown


@pytest.fixture
def console() -> Iterator[io.StringIO]:
    """A log for people; what was before is put back."""
    yield from _configured("console", io.StringIO())


def test_lines_for_people_name_fields_and_hide_secrets(console: io.StringIO) -> None:
    structlog.get_logger().info("run_created", run_id="run_1", token="geheim")
    assert "run_created" in console.getvalue()
    assert "run_id=run_1" in console.getvalue()
    assert "geheim" not in console.getvalue()


FOREIGN = "".join(map(chr, range(256))) + "\x1b]0;pwned\a\x1b[2J\u202e\u200b\ufeff\udcff"


class _Foreign:
    def __repr__(self) -> str:
        return FOREIGN


@pytest.mark.parametrize("kind", ["json", "console"])
def test_no_record_drives_a_terminal(kind: str, request: pytest.FixtureRequest) -> None:
    out: io.StringIO = request.getfixturevalue("stream" if kind == "json" else "console")
    log = structlog.get_logger()
    log.info(FOREIGN, title=FOREIGN, text="\x1b[2J", parts=[FOREIGN], other=_Foreign(), **{FOREIGN: FOREIGN})
    logging.getLogger(FOREIGN).warning("shown %s", FOREIGN)
    assert len(out.getvalue().splitlines()) == 2
    try:
        raise ValueError(FOREIGN)
    except ValueError as error:
        log.error("broke", exc_info=error)
    assert visible(out.getvalue(), LAYOUT) == out.getvalue()
    assert "x1b" in out.getvalue() or "u001b" in out.getvalue()


def test_a_locale_that_lacks_a_character_costs_no_record() -> None:
    written = io.BytesIO()
    out = io.TextIOWrapper(written, "latin-1")
    for _ in _configured("console", out):
        structlog.get_logger().info("named", title="你")
    assert rb"title=\u4f60" in written.getvalue()


class _Gone(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


def test_whoever_logs_goes_on_when_nobody_takes_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in _configured("json", _Gone()):
        structlog.get_logger("ours").info("said")
        logging.getLogger("theirs").warning("said")
    assert "theirs" not in capsys.readouterr().out


def test_exceptions_come_with_their_traceback(stream: io.StringIO) -> None:
    log = structlog.get_logger("a")
    try:
        raise ValueError("three")
    except ValueError:
        log.exception("broke", at=1)
    (record,) = _records(stream)
    assert (record["level"], record["event"], record["at"]) == ("error", "broke", 1)
    assert "ValueError: three" in record["exception"]


async def test_records_of_one_turn_are_written_at_its_end(stream: io.StringIO) -> None:
    structlog.get_logger().info("first")
    structlog.get_logger().info("second", number=2)
    assert _records(stream) == []
    await asyncio.sleep(0)
    assert [record["event"] for record in _records(stream)] == ["first", "second"]
    structlog.get_logger().info("third")
    await asyncio.sleep(0)
    assert [record["event"] for record in _records(stream)] == ["first", "second", "third"]


@pytest.mark.parametrize("name", ["warning", "error", "exception", "critical"])
async def test_what_is_wrong_is_written_at_once_behind_what_waits(stream: io.StringIO, name: str) -> None:
    structlog.get_logger().info("first")
    getattr(structlog.get_logger(), name)("second")
    assert [record["event"] for record in _records(stream)] == ["first", "second"]


async def test_records_of_other_loggers_keep_their_place(stream: io.StringIO) -> None:
    structlog.get_logger().info("first")
    logging.getLogger("library").info("second")
    assert [record["event"] for record in _records(stream)] == ["first", "second"]


async def test_records_of_threads_are_written_at_once(stream: io.StringIO) -> None:
    structlog.get_logger().info("first")
    await asyncio.to_thread(lambda: structlog.get_logger().info("second"))
    assert [record["event"] for record in _records(stream)] == ["first", "second"]


async def test_the_time_of_a_record_is_that_of_the_call(stream: io.StringIO) -> None:
    structlog.get_logger().info("first")
    before = datetime.now(UTC)
    await asyncio.sleep(0)
    (record,) = _records(stream)
    assert datetime.fromisoformat(record["timestamp"]) <= before


def test_a_loop_that_has_ended_keeps_no_record_back(stream: io.StringIO) -> None:
    async def last_turn(name: str) -> None:
        structlog.get_logger().info(name)

    for name in ("first", "second"):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(last_turn(name))
        loop.close()
    asyncio.run(asyncio.sleep(0))
    structlog.get_logger().info("third")
    assert [record["event"] for record in _records(stream)] == ["first", "second", "third"]


async def test_a_new_loop_writes_what_an_ended_one_has_left(stream: io.StringIO) -> None:
    def another_loop() -> None:
        async def last_turn() -> None:
            structlog.get_logger().info("first")

        loop = asyncio.new_event_loop()
        loop.run_until_complete(last_turn())
        loop.close()

    await asyncio.to_thread(another_loop)
    structlog.get_logger().info("second")
    await asyncio.sleep(0)
    assert [record["event"] for record in _records(stream)] == ["first", "second"]


class _NotShown:
    def __str__(self) -> str:
        raise ValueError("not now")


@pytest.mark.parametrize("value", [_NotShown(), {1: "a", "b": 2}, {(1, 2): 3}], ids=["text", "order", "key"])
async def test_a_value_that_can_not_be_shown_takes_no_other_record_with_it(stream: io.StringIO, value: object) -> None:
    log = structlog.get_logger()
    log.info("before")
    log.warning("broken", value=value)
    log.info("behind")
    await asyncio.sleep(0)
    assert [record["event"] for record in _records(stream)] == ["before", "record_not_shown", "behind"]
    assert _records(stream)[1]["of"] == "broken"
