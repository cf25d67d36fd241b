"""What a token grants."""

from dataclasses import replace

import pytest

from oa_base.refusal import Refusal
from oa_khala.grants import AllOf
from oa_khala.server.admission import Grant, admit, check_device, check_owner, check_same_session, concealed
from oa_khala.topics import RUN_EVENTS, parse_topic

RUN = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
USER = "user:usr_01J9ZQ6T5W3M8K2N4P7R1S0V6X:runs"
RUN_TOPIC = parse_topic(RUN)
GRANT = Grant("usr_a", "org_a", frozenset({"runs.read"}), frozenset({RUN, USER}), "ses_1", "dev_1", "jti", 1_000)


def reason(call: object, *arguments: object) -> str:
    with pytest.raises(Refusal) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.reason


def test_a_granted_topic_is_admitted() -> None:
    assert str(admit(GRANT, RUN)) == RUN


def test_the_refusals_come_in_their_order() -> None:
    assert reason(admit, GRANT, "nonsense") == "invalid_topic"
    assert reason(admit, replace(GRANT, topics=frozenset(), scopes=frozenset()), RUN) == "forbidden_topic"
    assert reason(admit, replace(GRANT, scopes=frozenset()), RUN) == "missing_scope"


@pytest.mark.parametrize(
    ("user", "org", "mine"),
    [("usr_a", "org_b", True), ("usr_b", "org_a", True), ("usr_b", "org_b", False), ("", "", False)],
)
def test_a_topic_is_the_subjects_or_the_orgs(user: str, org: str, mine: bool) -> None:
    if mine:
        check_owner(GRANT, RUN_TOPIC, user, org)
    else:
        assert reason(check_owner, GRANT, RUN_TOPIC, user, org) == "owner_mismatch"


def test_a_token_without_org_owns_nothing_of_topics_without_org() -> None:
    nobody = replace(GRANT, subject="", org_id="")
    assert reason(check_owner, nobody, RUN_TOPIC, "", "") == "owner_mismatch"


def test_device_and_session_are_bound() -> None:
    check_device(GRANT, "dev_1")
    check_device(replace(GRANT, device_id=""), "dev_2")
    assert reason(check_device, GRANT, "dev_2") == "invalid_token"
    check_same_session(GRANT, replace(GRANT, jti="other", topics=frozenset()))
    assert reason(check_same_session, GRANT, replace(GRANT, session_id="ses_2")) == "invalid_token"
    assert reason(check_same_session, GRANT, replace(GRANT, subject="usr_b")) == "invalid_token"


WIDE = replace(GRANT, topics=frozenset(), all_of=frozenset({AllOf(RUN_EVENTS, "org_a")}))


def test_of_an_owners_topics_each_may_be_opened_and_its_source_says_whether_it_is() -> None:
    assert admit(WIDE, RUN) == RUN_TOPIC
    assert reason(admit, WIDE, USER) == "forbidden_topic", "another class"
    assert reason(admit, replace(WIDE, scopes=frozenset()), RUN) == "missing_scope"
    check_owner(WIDE, RUN_TOPIC, "usr_b", "org_a")
    assert reason(check_owner, WIDE, RUN_TOPIC, "usr_a", "org_b") == "forbidden_topic", "its subject's, elsewhere"


def test_what_is_not_there_is_refused_like_what_is_somebody_elses_unless_the_token_names_it() -> None:
    with pytest.raises(Refusal) as not_yours:
        check_owner(WIDE, RUN_TOPIC, "usr_b", "org_b")
    not_there = concealed(WIDE, RUN_TOPIC, Refusal("not_found", "there is no such run"))
    assert (not_there.reason, not_there.message) == (not_yours.value.reason, not_yours.value.message)
    assert concealed(GRANT, RUN_TOPIC, Refusal("not_found", "there is no such run")).reason == "not_found"
    assert concealed(WIDE, RUN_TOPIC, Refusal("unavailable", "away")).reason == "unavailable"


def test_whose_a_named_worker_is_is_known_only_when_it_is_subscribed() -> None:
    worker = parse_topic("worker:wrk_01J9ZQ6T5W3M8K2N4P7R1S0V6X:lifecycle")
    named = replace(GRANT, topics=frozenset({str(worker)}))
    check_owner(named, worker, "", "org_a")
    assert reason(check_owner, named, worker, "", "org_b") == "forbidden_topic"
    assert concealed(named, worker, Refusal("not_found", "there is no such worker")).reason == "forbidden_topic"
