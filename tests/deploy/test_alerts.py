"""Alerts look at metrics that exist, and each leads to a page that says what to do about it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from oa_base.catalogue import is_reason
from oa_localstack.stack import Stack
from oa_platform.postgres.history import EpochCause
from oa_platform.system.clock import SystemClock
from oa_platform.telemetry import metrics
from oa_platform.tls.certificates import Certificates
from oa_platform.tls.pair import PairFiles
from oa_testing.plain_http import plain_http
from oa_testing.postgres import REPOSITORY
from oa_testing.waiting import PATIENCE_S
from services.control.routes.app.canaries import Canaries
from services.projector.projection.domain import HaltCause
from services.runtime.log.limits import SequencerLimits
from tests.deploy.go_modules import BUILD_TIMEOUT_S, FETCH_TIMEOUT_S, SchemasMissing, built
from tests.deploy.manifests import SafeLoader

RULES = sorted((REPOSITORY / "deploy" / "alerts").glob("*.yaml"))
SEVERITIES = {"page", "ticket"}
_WORDS = re.compile(r"\b(?:oa_[a-z0-9_]+|up)\b")
_GROWTH = re.compile(r"increase\((?P<name>oa_[a-z0-9_]+)(?P<labels>\{[^}]*\})?\[")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_REASONS = re.compile(r'\breason=~?"([a-z_|]+)"')
_CHECKS = re.compile(r'\breadiness\.add\("(\w+)"')
# How work in the background notes a failure, and goes on: `oa_platform.health.failures`.
_SURVIVED = re.compile(r'(?:\b(?:surviving|note_survived)\(_log, |still_waits=)"(\w+)"')


@dataclass(frozen=True)
class Alert:
    """One rule. `runbook` is the path of its page in the checkout."""

    name: str
    expression: str
    severity: str
    summary: str
    runbook: str

    @property
    def metrics(self) -> set[str]:
        """The metrics that it looks at."""
        return set(_WORDS.findall(self.expression))

    @property
    def counters(self) -> list[tuple[str, set[tuple[str, str]]]]:
        """The counters of which it wants to know the first growth, each with the labels that it asks for."""
        if "> 0" not in self.expression:
            return []
        return [
            (found["name"], set(_LABEL.findall(found["labels"] or ""))) for found in _GROWTH.finditer(self.expression)
        ]


def _alerts() -> list[Alert]:
    found = []
    for path in RULES:
        for group in yaml.load(path.read_text("utf-8"), SafeLoader)["groups"]:  # noqa: S506 - the safe one in C
            for rule in group["rules"]:
                notes = rule["annotations"]
                labels = rule["labels"]
                found.append(Alert(rule["alert"], rule["expr"], labels["severity"], notes["summary"], notes["runbook"]))
    return found


ALERTS = _alerts()


def pages_without_alert(alerts: list[Alert], root: Path) -> list[str]:
    """Alerts whose page doesn't exist or doesn't name them."""
    texts = {alert: root / alert.runbook for alert in alerts}
    return [
        alert.name
        for alert, page in texts.items()
        if not page.is_file() or f"`{alert.name}`" not in page.read_text("utf-8")
    ]


def test_every_alert_is_whole() -> None:
    assert len(ALERTS) >= 20
    assert [name for name, count in Counter(alert.name for alert in ALERTS).items() if count > 1] == []
    assert {alert.severity for alert in ALERTS} == SEVERITIES
    assert [alert.name for alert in ALERTS if not alert.summary or not alert.metrics] == []


def test_every_alert_has_a_page_that_names_it() -> None:
    assert pages_without_alert(ALERTS, REPOSITORY) == []
    gone = Alert("Gone", "up", "page", "s", "docs/runbooks/gone.md")
    unnamed = Alert("Gone", "up", "page", "s", ALERTS[0].runbook)
    assert pages_without_alert([gone, unnamed], REPOSITORY) == ["Gone", "Gone"]


def test_a_page_says_what_waits_while_some_work_in_the_background_fails() -> None:
    """Each of these failures is counted under the event that it has in the log, and one alert looks at all of them."""
    [alert] = [alert for alert in ALERTS if alert.name == "BackgroundWorkFails"]
    assert alert.metrics == {"oa_background_failures_total"}
    assert _explained_by(alert) == _events_of_failures()


def _explained_by(alert: Alert) -> set[str]:
    """What the tables of the alert's page have rows for."""
    cells = re.findall(r"^\| (`.*?) \|", (REPOSITORY / alert.runbook).read_text("utf-8"), re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`(\w+)`", cell)}


def _events_of_failures() -> set[str]:
    sources = [path for folder in ("libs/oa_platform", "services") for path in (REPOSITORY / folder).rglob("*.py")]
    found = {event for path in sources if "tests" not in path.parts for event in _SURVIVED.findall(path.read_text())}
    assert len(found) > 30
    return found


def test_a_page_says_where_to_look_for_each_check_that_can_fail() -> None:
    [alert] = [alert for alert in ALERTS if alert.name == "ServiceNotReady"]
    sources = [
        path for folder in ("libs/oa_platform/process", "services") for path in (REPOSITORY / folder).rglob("*.py")
    ]
    checks = {name for path in sources if "tests" not in path.parts for name in _CHECKS.findall(path.read_text())}
    assert _explained_by(alert) == checks >= {"postgres", "runtime"}


def test_a_page_says_what_to_do_about_each_cause_of_a_halt_and_of_a_new_epoch() -> None:
    causes: dict[str, set[str]] = {
        "ProjectionStopped": {*HaltCause},
        "LogEpochGiven": {*EpochCause} - {EpochCause.INSTALLED},
        "JournalEpochGiven": {*EpochCause} - {EpochCause.INSTALLED},
    }
    for name, all_of_them in causes.items():
        [alert] = [alert for alert in ALERTS if alert.name == name]
        assert all_of_them <= _explained_by(alert), name


def test_pages_name_alerts_that_exist() -> None:
    """A line "Alert: `X`." or "Alerts: `X`, `Y`." names none that is gone."""
    named = set()
    for page in (REPOSITORY / "docs" / "runbooks").glob("*.md"):
        for line in re.findall(r"^Alerts?: .*$", page.read_text("utf-8"), re.MULTILINE):
            named |= set(re.findall(r"`(\w+)`", line))
    assert named == {alert.name for alert in ALERTS}


def test_reasons_are_in_the_catalogue() -> None:
    reasons = {word for alert in ALERTS for found in _REASONS.findall(alert.expression) for word in found.split("|")}
    assert reasons
    assert [reason for reason in reasons if not is_reason(reason)] == []


def test_the_bound_of_the_queue_is_the_default_one() -> None:
    rule = next(alert for alert in ALERTS if alert.name == "SequencerQueueNearBound")
    assert rule.expression == f"oa_runtime_queue_commands > {SequencerLimits().queue_commands * 4 // 5}"


@pytest.mark.asyncio(loop_scope="module")
async def test_only_a_service_that_follows_control_says_when_it_heard_what_was_revoked(shared_stack: Stack) -> None:
    """In any other one it would be 0 for ever, and somebody would be called for that."""
    ports = shared_stack.ports
    followers = {ports.control_ops: False, ports.runtime_ops: True, ports.projector_ops: True, ports.gateway_ops: True}
    async with plain_http() as client:
        for port, follows in followers.items():
            text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            said = re.findall(r"^oa_revocations_heard_timestamp_seconds (\S+)$", text, re.MULTILINE)
            assert [float(time) > 0 for time in said] == [True] * follows


@pytest.mark.asyncio(loop_scope="module")
async def test_counters_whose_growth_is_alerted_are_there_before_they_count(shared_stack: Stack) -> None:
    """To Prometheus, a counter that first shows as 1 has not grown: the alert would miss what happens once."""
    # Parts that a local stack does without.
    Canaries(cast("Any", None), SystemClock(), cast("Any", None), 1.0)
    Certificates(PairFiles("service", cast("Any", None), Path("none"), Path("none")), SystemClock(), 1000)
    texts = [*await _metrics_of_all(shared_stack), metrics.render().decode()]
    series = [
        (name, set(_LABEL.findall(labels)))
        for text in texts
        for name, labels in re.findall(r"^(oa_\w+?)(\{.*\})? \S+$", text, re.MULTILINE)
    ]
    asked = [(alert.name, name, labels) for alert in ALERTS for name, labels in alert.counters]
    assert len(asked) >= 10
    missing = [alert for alert, name, labels in asked if not any(name == one and labels <= its for one, its in series)]
    assert missing == []
    # Each door counts its own refusals.
    doors = {dict(labels).get("surface", "") for name, labels in series if name == "oa_refusals_total"}
    assert doors == {"grpc", "http", "ws"}


async def _metrics_of_all(stack: Stack) -> list[str]:
    ports = stack.ports
    async with plain_http() as client:
        return [
            (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            for port in (ports.control_ops, ports.runtime_ops, ports.projector_ops, ports.gateway_ops)
        ]


def test_a_service_of_which_nothing_is_left_is_missed() -> None:
    """Where targets are discovered, one that is gone is no target, and `up` has no series for it."""
    [rule] = [alert for alert in ALERTS if alert.name == "ServiceMissing"]
    words = ("control", "runtime", "projector", "khala")
    assert sorted(rule.metrics, key=lambda name: words.index(name.split("_")[1])) == [
        "oa_control_maintenance",
        "oa_runtime_queue_commands",
        "oa_projector_connected",
        "oa_khala_connections",
    ]
    assert rule.expression.count("absent(") == len(words)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_page_of_metrics_has_those_that_a_running_stack_shows(shared_stack: Stack) -> None:
    """That the page has what other pages and the alerts name: tests/house/test_names_in_documents.py."""
    texts = await _metrics_of_all(shared_stack)
    shown = {name for text in texts for name in re.findall(r"^# TYPE (oa_\w+) ", text, re.MULTILINE)}
    page = (REPOSITORY / "docs" / "metrics.md").read_text("utf-8")
    # A counter and a histogram also show when they were made.
    shown = {name for name in shown if not name.endswith("_created")}
    assert shown == set(re.findall(r"^\| `(\w+)`", page, re.MULTILINE))


@pytest.mark.timeout(FETCH_TIMEOUT_S + BUILD_TIMEOUT_S)
def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    """By its own reader, which promtool has too: where there is no promtool, that reader is built."""
    command = _rules_checker(tmp_path)
    assert _refused(command, RULES) == ""
    text = RULES[0].read_text("utf-8")
    broken = {"expr: ": "expr: sum(", "for: ": "for: soon ", "annotations:": "anotations:"}
    for right, wrong in broken.items():
        assert right in text
        changed = tmp_path / "changed.yaml"
        changed.write_text(text.replace(right, wrong, 1), "utf-8")
        assert _refused(command, [changed]) != ""


def _rules_checker(folder: Path) -> list[str]:
    if promtool := shutil.which("promtool"):
        return [promtool, "check", "rules", "--lint-fatal"]
    try:
        return [str(built(Path(__file__).parent / "rules_checker", folder))]
    except SchemasMissing as missing:
        pytest.skip(str(missing))


def _refused(command: Sequence[str], files: Sequence[Path]) -> str:
    """What is wrong with the files."""
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    return "" if done.returncode == 0 else done.stdout + done.stderr
