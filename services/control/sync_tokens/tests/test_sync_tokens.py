"""The mint over the real database."""

from __future__ import annotations

from typing import Any

import pytest

from oa_base.refusal import Refusal
from services.control.sync_tokens.domain import MAX_AUDITED_TOPICS
from services.control.sync_tokens.limits import MAX_OWNERSHIP_QUESTIONS
from services.control.tests.cases import ORIGIN, Cases
from services.control.tests.harness import new_id


async def test_topics_are_granted_or_refused_by_name(cases: Cases) -> None:
    me = await cases.principal()
    mine, theirs, unknown = new_id("run"), new_id("run"), new_id("run")
    cases.runs.orgs = {mine: me.org_id, theirs: new_id("org")}
    topics = [
        f"run:{mine}:events",
        f"run:{theirs}:events",
        f"run:{unknown}:events",
        f"user:{me.subject}:runs",
        f"user:{new_id('usr')}:runs",
        f"org:{me.org_id}:runs",
        f"org:{new_id('org')}:runs",
        f"worker:{new_id('wrk')}:lifecycle",
        "run:nonsense:events",
    ]
    minted = await cases.sync_tokens.mint(me, topics, 0, "cli", ORIGIN)
    assert {grant.topic: grant.reason for grant in minted.grants} == dict(
        zip(
            topics,
            [
                None,
                "owner_mismatch",
                "forbidden_topic",
                None,
                "owner_mismatch",
                None,
                "owner_mismatch",
                "forbidden_topic",
                "invalid_topic",
            ],
            strict=True,
        )
    )
    assert cases.runs.asked == 3


async def test_a_topic_asked_for_twice_is_answered_twice_and_decided_once(cases: Cases) -> None:
    me = await cases.principal()
    run_id = new_id("run")
    cases.runs.orgs = {run_id: me.org_id}
    minted = await cases.sync_tokens.mint(me, [f"run:{run_id}:events"] * 2, 0, "", ORIGIN)
    assert len(minted.grants) == 2
    assert cases.runs.asked == 1


async def test_not_knowing_whose_a_run_is_mints_nothing(cases: Cases) -> None:
    me = await cases.principal()
    cases.runs.orgs = None
    with pytest.raises(Refusal, match="unavailable"):
        await cases.sync_tokens.mint(me, [f"user:{me.subject}:runs", f"run:{new_id('run')}:events"], 0, "", ORIGIN)
    minted = await cases.sync_tokens.mint(me, [f"user:{me.subject}:runs"], 0, "", ORIGIN)
    assert minted.grants[0].reason is None


async def test_a_mint_asks_runtime_a_limited_number_of_questions_at_a_time(cases: Cases) -> None:
    me = await cases.principal()
    topics = [f"run:{new_id('run')}:events" for _ in range(128)]
    cases.runs.orgs = {topic.split(":")[1]: me.org_id for topic in topics}
    cases.runs.takes_s = 0.005
    minted = await cases.sync_tokens.mint(me, topics, 0, "", ORIGIN)
    assert all(grant.reason is None for grant in minted.grants)
    assert cases.runs.most_at_a_time == MAX_OWNERSHIP_QUESTIONS


async def test_a_mint_is_one_row_of_the_audit_trail_however_much_is_asked_for(cases: Cases, admin: Any) -> None:
    me = await cases.principal()
    junk = [f"junk {number} \x1b[2J" for number in range(127)]
    await cases.sync_tokens.mint(me, [f"user:{me.subject}:runs", *junk], 0, "", ORIGIN)
    with pytest.raises(Refusal, match="invalid_topic"):
        await cases.sync_tokens.mint(me, junk, 0, "", ORIGIN)
    rows = await admin.fetch(
        "SELECT target, reason FROM control.audit_events WHERE action = 'sync_token.minted' ORDER BY audit_id"
    )
    assert [tuple(row) for row in rows] == [
        (f"1 granted, user:{me.subject}:runs, 127 refused, 127 invalid_topic", "invalid_topic"),
        ("0 granted, 127 refused, 127 invalid_topic", "invalid_topic"),
    ]


async def test_the_row_names_a_limited_number_of_topics(cases: Cases, admin: Any) -> None:
    me = await cases.principal()
    topics = [f"run:{new_id('run')}:events" for _ in range(128)]
    cases.runs.orgs = {topic.split(":")[1]: me.org_id for topic in topics}
    await cases.sync_tokens.mint(me, topics, 0, "", ORIGIN)
    target = await admin.fetchval("SELECT target FROM control.audit_events WHERE action = 'sync_token.minted'")
    assert target == ", ".join(["128 granted", *topics[:MAX_AUDITED_TOPICS], "0 refused"])
