"""The form of an event, which never changes: chains of earlier releases are checked by later ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

from oa_runlog.proof.audit import AuditHead, audit_start
from services.control.audit_log.domain import Outcome, RecordedEvent, seals_of

EVENT = RecordedEvent(
    audit_id=7,
    occurred_at=datetime(2026, 11, 27, 16, 0, 0, 120, UTC),
    action="session.signed_in",
    reason="",
    actor="usr_01JD8V0000000000000000000A",
    org_id="org_01JD8V0000000000000000000A",
    target='ses_\u00fc\u2028"',
    network="2001:db8::/64",
    request_id="req_1",
    sequence=3,
)
CANONICAL = (
    '{"action":"session.signed_in","actor":"usr_01JD8V0000000000000000000A","network":"2001:db8::/64",'
    '"org_id":"org_01JD8V0000000000000000000A","reason":"","request_id":"req_1","sequence":3,'
    '"target":"ses_\u00fc\u2028\\"","time":"2026-11-27T16:00:00.000120Z"}'
)
START = "0:e69a5d0b53269f45e1d377715d7736a59d9d09ee0083ebe77adfa0c4c22ed867"
AFTER = "1:99639e2f9446d289478527f1ce19ffb764efd7ae2e3fe55b6a74ac77c9663d51"


def test_an_event_has_one_form() -> None:
    assert EVENT.canonical().decode() == CANONICAL
    elsewhere = replace(EVENT, occurred_at=EVENT.occurred_at.astimezone(timezone(timedelta(hours=5))))
    assert elsewhere.canonical() == EVENT.canonical()


def test_a_chain_has_one_form() -> None:
    start = audit_start(EVENT.org_id)
    assert str(start) == START
    assert str(start.after(EVENT.canonical())) == AFTER


def test_seals_go_on_from_the_heads_that_there_are() -> None:
    head = AuditHead(2, bytes(32))
    other = replace(EVENT, org_id="", audit_id=8)
    seals = seals_of([EVENT, other, replace(EVENT, audit_id=9)], {EVENT.org_id: head})
    assert [(seal.org_id, seal.audit_id, seal.head.sequence) for seal in seals] == [
        *((EVENT.org_id, 7, 3), ("", 8, 1), (EVENT.org_id, 9, 4)),
    ]
    assert seals[0].head == head.after(EVENT.canonical())
    assert seals[1].head == audit_start("").after(replace(other, sequence=1).canonical())


def test_a_reason_is_why_it_was_refused_or_why_it_was_done() -> None:
    assert EVENT.outcome is Outcome.DONE
    assert replace(EVENT, reason="token_replay", action="session.refreshed").outcome is Outcome.REFUSED
    assert replace(EVENT, reason="user_requested", action="session.revoked").outcome is Outcome.DONE
    assert replace(EVENT, reason="errors", action="canary.rolled_back").outcome is Outcome.DONE
    for action in ("member.role_set", "invitation.created", "invitation.accepted"):
        assert replace(EVENT, reason="viewer", action=action).outcome is Outcome.DONE, action


def test_what_only_concerns_the_actor_is_not_shown_to_others() -> None:
    assert EVENT.seen_by(EVENT.actor) == EVENT
    shown = EVENT.seen_by("usr_other")
    assert (shown.network, shown.request_id, shown.actor) == ("", "", EVENT.actor)
