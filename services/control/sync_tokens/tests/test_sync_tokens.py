"""The mint over the real database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from oa_base.identity import PrincipalKind
from oa_base.refusal import Refusal
from oa_khala.grants import MAX_GRANTS, runs_of
from oa_khala.topics import TOPIC_CLASSES, Topic, TopicClass
from oa_platform.auth.keys import generate_key
from oa_platform.auth.tokens import MAX_TOKEN_CHARS
from services.control.policy.domain import StandingPrincipal
from services.control.sync_tokens.domain import MAX_AUDITED_TOPICS, Surface
from services.control.sync_tokens.limits import MAX_OWNERSHIP_QUESTIONS
from services.control.tests.cases import ORIGIN, Cases
from services.control.tests.harness import new_id
from services.control.tokens.app import TokenIssuer
from services.control.tokens.door import JwtSigner


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
    minted = await cases.sync_tokens.mint(me, topics, 0, Surface.CLI, ORIGIN)
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
                None,
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
    minted = await cases.sync_tokens.mint(me, [f"run:{run_id}:events"] * 2, 0, Surface.UNSTATED, ORIGIN)
    assert len(minted.grants) == 2
    assert cases.runs.asked == 1


async def test_not_knowing_whose_a_run_is_mints_nothing(cases: Cases) -> None:
    me = await cases.principal()
    cases.runs.orgs = None
    with pytest.raises(Refusal, match="unavailable"):
        await cases.sync_tokens.mint(
            me, [f"user:{me.subject}:runs", f"run:{new_id('run')}:events"], 0, Surface.UNSTATED, ORIGIN
        )
    minted = await cases.sync_tokens.mint(me, [f"user:{me.subject}:runs"], 0, Surface.UNSTATED, ORIGIN)
    assert minted.grants[0].reason is None


async def test_a_mint_asks_runtime_a_limited_number_of_questions_at_a_time(cases: Cases) -> None:
    me = await cases.principal()
    topics = [f"run:{new_id('run')}:events" for _ in range(128)]
    cases.runs.orgs = {topic.split(":")[1]: me.org_id for topic in topics}
    cases.runs.takes_s = 0.005
    minted = await cases.sync_tokens.mint(me, topics, 0, Surface.UNSTATED, ORIGIN)
    assert all(grant.reason is None for grant in minted.grants)
    assert cases.runs.peak == MAX_OWNERSHIP_QUESTIONS


async def test_a_mint_is_one_row_of_the_audit_trail_however_much_is_asked_for(cases: Cases, admin: Any) -> None:
    me = await cases.principal()
    junk = [f"junk {number} \x1b[2J" for number in range(127)]
    await cases.sync_tokens.mint(me, [f"user:{me.subject}:runs", *junk], 0, Surface.UNSTATED, ORIGIN)
    with pytest.raises(Refusal, match="invalid_topic"):
        await cases.sync_tokens.mint(me, junk, 0, Surface.UNSTATED, ORIGIN)
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
    await cases.sync_tokens.mint(me, topics, 0, Surface.UNSTATED, ORIGIN)
    target = await admin.fetchval("SELECT target FROM control.audit_events WHERE action = 'sync_token.minted'")
    assert target == ", ".join(["128 granted", *topics[:MAX_AUDITED_TOPICS], "0 refused"])


async def test_all_runs_of_an_owner_are_granted_without_a_question_about_any(cases: Cases) -> None:
    me = await cases.principal()
    asked = [runs_of(me.org_id), runs_of(me.subject), runs_of(new_id("org")), f"worker:{me.org_id}:lifecycle"]
    minted = await cases.sync_tokens.mint(me, asked, 0, Surface.CLI, ORIGIN)
    assert [grant.reason for grant in minted.grants] == [None, None, "owner_mismatch", None]
    assert cases.runs.asked == 0
    claims: dict[str, Any] = jwt.decode(minted.token, options={"verify_signature": False})
    assert (claims["claims_version"], claims.get("topics", [])) == (2, [])
    assert claims["grants"] == [
        {"form": "run:*:events", "ids": [me.org_id, me.subject]},
        {"form": "worker:*:lifecycle", "ids": [me.org_id]},
    ]
    assert claims["scopes"] == ["runs.read", "workers.read"]


async def test_a_token_for_a_page_of_somebody_else_opens_no_more_than_it_names(cases: Cases) -> None:
    me = await cases.principal()
    with pytest.raises(Refusal, match="surface_policy_denied"):
        await cases.sync_tokens.mint(me, [runs_of(me.org_id)], 0, Surface.WORKER, ORIGIN)
    run_id = new_id("run")
    cases.runs.orgs = {run_id: me.org_id}
    asked = [f"run:{run_id}:events", f"user:{me.subject}:runs", runs_of(me.subject)]
    minted = await cases.sync_tokens.mint(me, asked, 0, Surface.THIRD_PARTY, ORIGIN)
    assert [grant.reason for grant in minted.grants] == [None, "surface_policy_denied", "surface_policy_denied"]
    claims: dict[str, Any] = jwt.decode(minted.token, options={"verify_signature": False})
    assert claims["scopes"] == ["runs.read"]


@pytest.mark.parametrize("topic_class", TOPIC_CLASSES, ids=lambda one: one.name)
def test_as_many_topics_as_can_be_asked_for_fit_into_a_token(topic_class: TopicClass) -> None:
    me = StandingPrincipal(PrincipalKind.USER, new_id("usr"), new_id("org"), session_id="s" * 30, device_id="d" * 64)
    topics = [Topic(topic_class, new_id(topic_class.id_prefix[:-1])) for _ in range(MAX_GRANTS)]
    end = datetime.now(UTC) + timedelta(seconds=900)
    scopes = sorted({one.required_scope for one in TOPIC_CLASSES})
    issuer = TokenIssuer(JwtSigner(generate_key()))
    issued = issuer.for_topics(me, topics, scopes, "s" * 32, datetime.now(UTC), end)
    assert len(issued.token) <= MAX_TOKEN_CHARS
