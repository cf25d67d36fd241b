"""docs/protocol/khala.md has every limit that a client can notice, with its default."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from types import MappingProxyType

from oa_base.crowd import OWN_PER_FREE, Shares
from oa_khala.client.commands import ClientLimits
from oa_khala.server.limits import SessionLimits
from oa_khala.topics import MAX_TOPIC_LENGTH, RUN_EVENTS, USER_RUNS
from oa_platform.auth.tokens import MAX_TOKEN_CHARS
from oa_testing.postgres import REPOSITORY
from services.khala_gateway.admission.limits import AdmissionLimits
from services.khala_gateway.feeds.limits import HubLimits
from services.khala_gateway.sockets.limits import PortLimits, SocketLimits

_UNITS = {"s": 1000, "KiB": 1 << 10, "MiB": 1 << 20, "": 1}
_NUMBER = re.compile(r"(?<![\w.])(\d[\d,]*)(?: (s|KiB|MiB)\b)?")

NOTICED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "opening request": ("handshake_deadline_ms", "max_request_bytes"),
        "TLS handshakes under way with a network": ("max_handshakes_of_network",),
        "TCP connections of a network that have not sent their opening request yet": ("waiting_per_address",),
        "handshakes of a network": ("handshake_burst_per_address", "handshakes_per_s_per_address"),
        "connections of a network": ("connections_per_address",),
        "handshakes of a gateway": ("handshake_burst", "handshakes_per_s"),
        "connections of a gateway": ("max_connections",),
        "Hello": ("hello_deadline_ms",),
        "frames that wait for the answer to Hello or RefreshToken": ("max_pipelined_frames",),
        "connections of a session; of a principal": ("connections_per_session", "connections_per_principal"),
        "message of a client": ("max_frame_bytes",),
        "topics of a connection": ("max_topics",),
        "topics subscribed": ("subscribe_burst", "subscribe_per_s"),
        "silence of a client": ("idle_timeout_ms",),
        "silence of a gateway": ("heartbeat_interval_ms",),
        "a client that takes no byte of what waits for it": ("slow_consumer_ms", "linger_ms"),
        "closing handshake, once everything before it was sent": ("close_timeout_ms",),
        "wait until a topic's source delivers it": ("carry_timeout_ms",),
        "answers to a client that takes nothing": ("answers_bytes",),
        "part of a snapshot": ("snapshot_part_bytes",),
    }
)
"""A row of the table -> the limits of the gateway that it states, in the order of their numbers."""
ELSEWHERE = {
    "snapshot_max_bytes": "the row of snapshots, which also has the limit of our clients",
    "list_snapshot_bytes": "the section about snapshots",
    "deflate_from_bytes": "the section about compression",
    "drain_window_ms": "DRAINING says the delay of each connection",
}
"""What a client notices and what another part of the page says."""
UNNOTICED = {
    *("addresses", "backlog", "write_high_bytes", "write_low_bytes", "send_buffer_bytes", "unsent_bytes", "trusted"),
    *("slice_frames", "slice_bytes", "page_frames", "page_bytes", "kept_pages_bytes", "kept_pages_ms"),
    *("concurrent_repairs", "concurrent_confirmations", "concurrent_snapshots", "concurrent_replays"),
    *("kept_snapshots_bytes", "kept_snapshots_ms", "audit_interval_ms"),
}
"""What only changes how fast the gateway is, or how much memory it takes."""


def _numbers(text: str) -> list[int]:
    plain = re.sub(r"`[^`]*`", "", text)
    return [int(amount.replace(",", "")) * _UNITS[unit] for amount, unit in _NUMBER.findall(plain)]


def _rows(page: str) -> dict[str, list[int]]:
    """Row of the table of limits -> the numbers of its second column, in milliseconds, bytes, or what they count."""
    table = page.partition("\n## Limits\n")[2].partition("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {what: _numbers(limit) for what, limit, *_ in cells[1:]}


def _of_others() -> dict[str, list[int]]:
    """The rows that state no limit of the gateway alone."""
    all_connections = AdmissionLimits().max_connections
    shares = Shares(all_connections)
    while shares.has_room("org"):
        shares.came("org")
    client = ClientLimits()
    return {
        "connections of an org": [OWN_PER_FREE, sum(shares._taken.values()), all_connections],
        "connections of a token": [1],
        "client build id": [],
        "token": [MAX_TOKEN_CHARS],
        "topics in one Subscribe or Unsubscribe": [client.subscribe_batch],
        "tokens in a row that gateways refuse to one of our clients": [client.max_refused_tokens],
        "topics that one of our clients follows, without those that a grant of an owner opens": [client.max_topics],
        "events that one resume replays, where the topic has a snapshot for the client instead": [
            USER_RUNS.replay_budget,
            RUN_EVENTS.replay_budget,
        ],
        "name of a topic": [MAX_TOPIC_LENGTH],
        "frame of a gateway": [256 << 10],
        "snapshot, all parts": [HubLimits().snapshot_max_bytes, client.max_snapshot_bytes],
    }


def test_the_page_has_every_limit_that_a_client_can_notice_with_its_default() -> None:
    # Of the two limits named `linger_ms`, clients notice that of the sockets.
    limits = (SessionLimits(), AdmissionLimits(), PortLimits(), HubLimits(), SocketLimits())
    defaults = {field.name: getattr(of, field.name) for of in limits for field in dataclasses.fields(of)}
    named = {name for names in NOTICED.values() for name in names}
    assert defaults.keys() - named - ELSEWHERE.keys() - UNNOTICED == {"socket", "feed"}, "not on the page"
    page = (REPOSITORY / "docs/protocol/khala.md").read_text("utf-8")
    expected = {row: [defaults[name] for name in names] for row, names in NOTICED.items()}
    assert _rows(page) == expected | _of_others()
