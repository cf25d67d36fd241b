"""Who gets which side, and when a canary moves: for whatever is asked and measured."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_platform.auth.jwks import JWKS_PATH
from services.control.edge.door.openapi.document import OPENAPI_PATH
from services.control.routes.domain.canary import (
    BOUNDS_MS,
    STEPS,
    Canary,
    Measured,
    Verdict,
    Why,
    judge,
    newest,
    quantile_ms,
)
from services.control.routes.domain.groups import DOCUMENTS, Group, Groups, Side, checked_path
from services.control.routes.domain.maintenance import Maintenance, bypass_of, is_bypass
from services.control.routes.domain.requests import choice_of, cohort_of, without_our_cookies
from services.control.routes.limits import MAX_ERROR_EXCESS, MAX_GROUPS, MAX_SLOWDOWN, SLOW_FLOOR_MS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PEOPLE = st.text(alphabet="abcdef0123456789", min_size=16, max_size=22)
PERCENT = st.integers(0, 100)


def group(percent: int = 0, name: str = "app", prefix: str = "/app", pinned: Side | None = None) -> Group:
    return Group(name, (prefix,), pinned, percent)


def canary(step: int, began: datetime = NOW, min_requests: int = 100) -> Canary:
    return Canary(1, "app", step, began, hold_ms=60_000, min_requests=min_requests)


def measured(requests: int, errors: int, ms: float) -> Measured:
    found = Measured()
    for number in range(requests):
        found.take(500 if number < errors else 200, ms)
    return found


@given(PEOPLE, PERCENT, PERCENT)
def test_who_has_the_shell_keeps_it_while_the_share_grows(person: str, one: int, other: int) -> None:
    less, more = sorted((one, other))
    if group(less).side_for(person, None) is Side.SHELL:
        assert group(more).side_for(person, None) is Side.SHELL
    assert group(0).side_for(person, None) is Side.LEGACY
    assert group(100).side_for(person, None) is Side.SHELL


def test_the_share_is_the_one_that_was_asked_for() -> None:
    people = [f"person-{number:08}" for number in range(20_000)]
    for percent in STEPS:
        count = sum(group(percent).side_for(person, None) is Side.SHELL for person in people)
        assert abs(count / len(people) - percent / 100) < 0.015


@given(PEOPLE, PERCENT, st.sampled_from([*Side, None]), st.sampled_from(Side))
def test_a_pin_counts_before_a_choice_and_a_choice_before_the_cohort(
    person: str, percent: int, choice: Side | None, pin: Side
) -> None:
    assert group(percent, pinned=pin).side_for(person, choice) is pin
    if choice is not None:
        assert group(percent).side_for(person, choice) is choice


def test_the_longest_prefix_of_whole_segments_decides() -> None:
    groups = Groups([group(name="all", prefix="/"), group(), group(name="deep", prefix="/app/deep/")])
    found = {
        path: getattr(groups.of_path(path), "name", None)
        for path in ("/", "/apple", "/app", "/app/", "/app/x", "/app/deep", "/app/deep/er", "/app/deeper")
    }
    assert found == {
        "/": "all",
        "/apple": "all",
        "/app": "app",
        "/app/": "app",
        "/app/x": "app",
        "/app/deep": "deep",
        "/app/deep/er": "deep",
        "/app/deeper": "app",
    }
    assert Groups([group()]).of_path("/other") is None


def test_no_path_is_in_two_groups_and_groups_have_a_bound() -> None:
    groups = Groups([group()])
    with pytest.raises(Refusal, match="invalid_value"):
        groups.with_group(group(name="other", prefix="/app/"))
    with pytest.raises(Refusal, match="invalid_value"):
        groups.with_group(Group("twice", ("/x", "/x/"), None, 0))
    assert [one.percent for one in groups.with_group(group(7))] == [7]
    full = Groups(group(name=f"g{number}", prefix=f"/{number}") for number in range(MAX_GROUPS))
    with pytest.raises(Refusal, match="limit_reached"):
        full.with_group(group())
    assert len(list(full.with_group(group(name="g1", prefix="/app")))) == MAX_GROUPS
    with pytest.raises(Refusal, match="not_found"):
        groups.without("other")


@pytest.mark.parametrize(
    "prefix",
    [
        *("//", "///", "/a//", "/a//b", "//a", "/..", "/.", "/a/../b", "/a/./", "/openagents.control.v1.OrgService"),
        *("/openapi.json", "/openapi.json/", "/.well-known/jwks.json"),
    ],
)
def test_a_prefix_that_no_request_matches_is_refused_by_its_field(prefix: str) -> None:
    with pytest.raises(Refusal) as refused:
        Groups().with_group(Group("app", ("/app", prefix), None, 0))
    assert (refused.value.reason, refused.value.field) == ("invalid_value", "group.prefixes[1]")


def test_the_documents_that_control_answers_itself_are_in_no_group() -> None:
    assert {JWKS_PATH, OPENAPI_PATH} == DOCUMENTS


@pytest.mark.parametrize(
    "prefix", ["/", "/a", "/a/", "/a/..b/.c", "/.well-known", "/openapi.json/x", "/openagents", "/openagents/x"]
)
def test_a_plain_prefix_is_taken(prefix: str) -> None:
    groups = Groups().with_group(Group("app", (prefix,), None, 0))
    assert groups.of_path(prefix) is groups.of_path(prefix.rstrip("/") + "/below") is groups.get("app")


@pytest.mark.parametrize("path", [b"/a/../b", b"/a/%2e%2E/b", b"/.", b"/a\\b", b"/a%5cb", b"/a%00", b"/a%0d%0ab"])
def test_a_path_that_can_be_read_in_two_ways_is_refused(path: bytes) -> None:
    with pytest.raises(Refusal, match="invalid_value"):
        checked_path(path)
    assert checked_path(b"/a%20b/..c/%C3%A4") == "/a b/..c/ä"


COUNTS = st.integers(0, 400)


@st.composite
def sides(draw: st.DrawFn) -> Measured:
    requests = draw(COUNTS)
    return measured(requests, draw(st.integers(0, requests)), draw(st.floats(0, 5_000)))


@given(st.integers(0, len(STEPS) - 1), sides(), sides(), st.floats(0, 120))
def test_a_step_is_taken_only_by_a_shell_that_is_as_good(
    step: int, legacy: Measured, shell: Measured, stood_s: float
) -> None:
    one = canary(step)
    verdict, why = judge(one, NOW + timedelta(seconds=stood_s), legacy, shell)
    assert (why is not Why.NONE) == (verdict is Verdict.ROLL_BACK)
    if verdict in (Verdict.STEP, Verdict.FINISH):
        assert stood_s >= 60
        assert legacy.requests >= one.min_requests
        assert (verdict is Verdict.FINISH) == (step == len(STEPS) - 1)
        if one.percent:
            assert shell.requests >= one.min_requests
            assert shell.errors / shell.requests <= legacy.errors / legacy.requests + MAX_ERROR_EXCESS
            assert shell.p95_ms <= max(legacy.p95_ms * MAX_SLOWDOWN, SLOW_FLOOR_MS)
    if verdict is Verdict.ROLL_BACK:
        assert one.percent


@pytest.mark.parametrize(
    ("step", "legacy", "shell", "expected"),
    [
        (0, (99, 0, 10), (0, 0, 0), Verdict.WAIT),
        (0, (100, 0, 10), (0, 0, 0), Verdict.STEP),
        (1, (500, 0, 10), (99, 0, 10), Verdict.WAIT),
        (1, (500, 0, 10), (100, 1, 10), Verdict.STEP),
        (1, (500, 0, 10), (100, 2, 10), Verdict.ROLL_BACK),
        (1, (500, 0, 10), (2, 2, 10), Verdict.ROLL_BACK),  # could not become good any more
        (1, (500, 0, 10), (2, 1, 10), Verdict.WAIT),
        (1, (500, 50, 10), (100, 10, 10), Verdict.STEP),  # the other side is no better
        (1, (500, 0, 10), (100, 0, 60), Verdict.STEP),  # nobody notices
        (1, (500, 0, 100), (100, 0, 200), Verdict.ROLL_BACK),
        (1, (500, 0, 10), (99, 0, 5_000), Verdict.WAIT),
        (4, (500, 0, 10), (100, 0, 10), Verdict.FINISH),
    ],
)
def test_a_canary_advances_waits_or_goes_back_by_what_was_measured(
    step: int, legacy: tuple[int, int, float], shell: tuple[int, int, float], expected: Verdict
) -> None:
    late = NOW + timedelta(seconds=60)
    assert judge(canary(step), late, measured(*legacy), measured(*shell))[0] is expected
    early = judge(canary(step), late - timedelta(milliseconds=1), measured(*legacy), measured(*shell))[0]
    assert early is (expected if expected is Verdict.ROLL_BACK else Verdict.WAIT)


@given(st.lists(sides(), max_size=len(STEPS)), st.integers(1, 600))
def test_a_side_is_as_it_was_in_the_newest_steps_that_have_enough_answers(steps: list[Measured], enough: int) -> None:
    found = newest(steps, enough)
    count = next(
        (number for number in range(len(steps) + 1) if sum(one.requests for one in steps[:number]) >= enough),
        len(steps),
    )
    assert found.requests == sum(one.requests for one in steps[:count]) == sum(found.times)
    assert found.errors == sum(one.errors for one in steps[:count])


@given(st.lists(st.floats(0, 200_000), min_size=1, max_size=200))
def test_a_quantile_is_a_bound_that_so_many_don_t_exceed(times: list[float]) -> None:
    found = Measured()
    for ms in times:
        found.take(200, ms)
    bound = found.p95_ms
    assert sum(ms <= bound for ms in times) >= 0.95 * len(times) - 1e-9
    lower = [one for one in BOUNDS_MS if one < bound]
    assert not lower or sum(ms <= lower[-1] for ms in times) < 0.95 * len(times)
    assert quantile_ms([0] * len(found.times), 0.95) == 0.0


@given(st.binary(min_size=1, max_size=64), st.integers(0, 2**40), st.integers(-100, 100))
def test_a_bypass_is_good_until_it_expires(key: bytes, expires_s: int, distance_s: int) -> None:
    maintenance = Maintenance(3, NOW)
    text = bypass_of(key, 3, expires_s)
    assert is_bypass(key, maintenance, text, expires_s + distance_s) == (distance_s < 0)


@given(st.text(max_size=130))
def test_nothing_else_is_a_bypass(text: str) -> None:
    assert not is_bypass(b"key", Maintenance(3, NOW), text, 0)


def test_a_bypass_is_for_one_maintenance_one_key_and_one_time() -> None:
    maintenance = Maintenance(3, NOW)
    text = bypass_of(b"key", 3, 100)
    mac = text.partition(".")[2]
    assert is_bypass(b"key", replace(maintenance, notice="other words"), text, 0)
    assert not is_bypass(b"key", Maintenance(4, NOW), text, 0)
    assert not is_bypass(b"other", maintenance, text, 0)
    for other in (f"1000.{mac}", f"0100.{mac}x", f".{mac}", text[:-1], f"²00.{mac}", f"{'1' * 120}.{mac}"):
        assert not is_bypass(b"key", maintenance, other, 0), other


def test_what_a_person_chose_and_who_it_is() -> None:
    assert choice_of({"x-oa-side": "shell"}, {"oa-side": "legacy"}) is Side.SHELL
    assert choice_of({"x-oa-side": "nonsense"}, {"oa-side": "legacy"}) is Side.LEGACY
    assert choice_of({}, {}) is None
    assert cohort_of({"oa-cohort": "a" * 22}) == "a" * 22
    assert cohort_of({"oa-cohort": "short"}) == cohort_of({"oa-cohort": "x" * 65}) == cohort_of({}) == ""
    sent = "a=1; oa-cohort=x; __Host-oa-bypass=secret; b=2;oa-side=shell"
    assert without_our_cookies(sent) == "a=1; b=2"
    assert without_our_cookies("oa-side=shell") == without_our_cookies("") == ""
