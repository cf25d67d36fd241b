"""Times and durations as they are typed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from apps.cli.__main__ import run
from apps.cli.commands.runs import schedules
from apps.cli.exits import Exit
from apps.cli.output import Output
from apps.cli.times import DURATION, DURATION_OR_ZERO, MOMENT, MOMENT_OR_DELAY, UP_TO_A_DAY, time_words
from oa_client.core.schedules import ScheduleDetails, schedule
from openagents.common.v1 import options_pb2
from openagents.control.v1 import route_service_pb2
from openagents.runtime.v1 import schedule_service_pb2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("500ms", timedelta(milliseconds=500)),
        ("10s", timedelta(seconds=10)),
        ("5m", timedelta(minutes=5)),
        ("2h", timedelta(hours=2)),
        ("1d", timedelta(days=1)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, expected: timedelta) -> None:
    assert DURATION.convert(text, None, None) == expected


@pytest.mark.parametrize("text", ["1500ms", "90s", "90m", "1h", "2d"])
def test_the_durations_of_a_schedule_are_shown_as_options_take_them(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ms = DURATION.convert(text, None, None) // timedelta(milliseconds=1)
    message = schedule_service_pb2.Schedule(catch_up_ms=ms)
    message.interval.every_ms = ms
    schedules._show(Output(), ScheduleDetails(schedule(message), (), (), {}))
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["times", "every", text] in shown
    assert ["catch-up", text] in shown


@pytest.mark.parametrize("text", ["", "5", "m", "-5m", "5 m", "1.5h", "5M", "٣m", "5m30s", "9999999999s"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter, match="10s, 5m, 2h"):
        DURATION.convert(text, None, None)


@pytest.mark.parametrize("text", ["0s", "0ms", "000d"])
def test_zero_is_a_duration_only_where_it_means_something(text: str) -> None:
    assert DURATION_OR_ZERO.convert(text, None, None) == timedelta()
    with pytest.raises(click.BadParameter, match="more than 0"):
        DURATION.convert(text, None, None)


@pytest.mark.parametrize(
    "arguments",
    [
        ("key", "create", "ci", "--ttl", "0s"),
        ("run", "start", "--timeout", "0s", "--", "true"),
        ("run", "start", "--timeout-ms", "0", "--", "true"),
        ("run", "start", "--start-timeout", "0ms", "--", "true"),
        ("run", "start", "--run-timeout", "0m", "--", "true"),
        ("schedule", "create", "tick", "--every", "1h", "--catch-up", "0s", "--", "true"),
        ("schedule", "create", "tick", "--every", "0s", "--", "true"),
        ("admin", "maintenance", "bypass", "--for", "0h"),
        ("admin", "maintenance", "on", "--retry-after", "0s"),
        ("admin", "route", "canary", "app", "--hold", "0s"),
    ],
    ids=" ".join,
)
def test_no_limit_is_asked_for_by_leaving_it_out(arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == Exit.USAGE
    assert re.search(r"more than 0|range x>=1", capfd.readouterr().err)


@pytest.mark.parametrize(
    "arguments",
    [
        ("admin", "maintenance", "bypass", "--for", "100d"),
        ("admin", "maintenance", "on", "--retry-after", "100d"),
        ("admin", "route", "canary", "app", "--hold", "86400001ms"),
    ],
    ids=" ".join,
)
def test_what_a_field_cannot_hold_is_wrong_usage(arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == Exit.USAGE
    assert "Give at most 24h." in capfd.readouterr().err


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("StartCanaryRequest", "hold_ms"),
        ("StartMaintenanceRequest", "retry_after_ms"),
        ("CreateBypassRequest", "ttl_ms"),
    ],
)
def test_up_to_a_day_is_what_the_contract_takes(message: str, field: str) -> None:
    options = route_service_pb2.DESCRIPTOR.message_types_by_name[message].fields_by_name[field].GetOptions()
    allowed = timedelta(milliseconds=options.Extensions[options_pb2.rules].maximum)
    assert allowed == UP_TO_A_DAY.max_duration


def test_a_key_may_be_replaced_without_an_overlap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OA_HOME", str(tmp_path / "stack"))
    monkeypatch.setenv("OA_CLIENT_HOME", str(tmp_path / "client"))
    assert run(("key", "rotate", "apk_01JD8V0000000000000000000A", "--overlap", "0s")) == Exit.SIGN_IN


def test_a_time_is_iso_8601() -> None:
    noon = datetime(2026, 12, 1, 12, tzinfo=UTC)
    assert MOMENT.convert("2026-12-01T12:00:00Z", None, None) == noon
    assert MOMENT.convert("2026-12-01T12:00", None, None) == noon
    assert MOMENT.convert("2026-12-01T13:00+01:00", None, None) == noon
    assert MOMENT.convert("2026-12-01", None, None) == noon.replace(hour=0)
    assert MOMENT_OR_DELAY.convert("2026-12-01", None, None) == noon.replace(hour=0)


def test_a_time_from_now_is_for_whoever_knows_the_sites_clock() -> None:
    assert MOMENT_OR_DELAY.convert("+10m", None, None) == timedelta(minutes=10)
    with pytest.raises(click.BadParameter, match="in UTC without an offset"):
        MOMENT.convert("+10m", None, None)


@pytest.mark.parametrize("text", ["", "noon", "2026-13-01T12:00:00Z", "12:00", "0001-01-01T00:00+14:00"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"in UTC without an offset"):
        MOMENT.convert(text, None, None)


def test_a_wait_that_is_none_says_how_to_write_one() -> None:
    with pytest.raises(click.BadParameter, match="10s, 5m, 2h"):
        MOMENT_OR_DELAY.convert("+soon", None, None)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("2026-12-01T12:00:00Z", "2026-12-01T12:00:00Z"),
        ("2026-12-01T12:00:00.123456Z", "2026-12-01T12:00:00Z"),
        ("", ""),
    ],
)
def test_a_time_is_shown_to_the_second_and_with_its_zone(given: str, shown: str) -> None:
    assert time_words(given) == shown
    if shown:
        assert MOMENT.convert(shown, None, None).replace(microsecond=0).isoformat() == shown.replace("Z", "+00:00")
