"""The mint over the real database."""

from __future__ import annotations

import pytest

from oa_base.refusal import Refusal
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
