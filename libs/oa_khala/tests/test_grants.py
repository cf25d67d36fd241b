"""What a sync token opens, as it is written, claimed and read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_khala.grants import (
    MAX_GRANTS,
    MAX_NAMED,
    AllOf,
    GrantClaims,
    grants_of,
    parse_grant,
    read_claims,
    runs_of,
    write_claims,
)
from oa_khala.topics import RUN_EVENTS, TOPIC_CLASSES, USER_RUNS, WORKER_LIFECYCLE, Topic, TopicClass

ULID = "01J9ZQ6T5W3M8K2N4P7R1S0V6X"
ME, ORG, RUN = f"usr_{ULID}", f"org_{ULID}", f"run_{ULID}"
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ids(prefixes: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Ids with one of these prefixes."""
    ulids = st.text(ALPHABET, min_size=25, max_size=25).map(lambda text: f"0{text}")
    return st.builds("{}{}".format, st.sampled_from(prefixes), ulids)


def grants_of_class(topic_class: TopicClass) -> st.SearchStrategy[Topic | AllOf]:
    """Topics of a class, and of owners where there are such grants."""
    one: st.SearchStrategy[Topic | AllOf] = ids((topic_class.id_prefix,)).map(lambda text: Topic(topic_class, text))
    if not topic_class.owner_prefixes:
        return one
    return one | ids(topic_class.owner_prefixes).map(lambda text: AllOf(topic_class, text))


any_grant = st.sampled_from(TOPIC_CLASSES).flatmap(grants_of_class)


@given(any_grant)
def test_what_is_written_is_read(grant: Topic | AllOf) -> None:
    assert parse_grant(str(grant)) == grant


@given(st.lists(any_grant, max_size=MAX_GRANTS, unique_by=str))
def test_what_is_claimed_is_granted_and_nothing_else(grants: list[Topic | AllOf]) -> None:
    read = read_claims(write_claims(grants))
    assert {*read.topics, *map(str, read.all_of)} == {str(one) for one in grants}


@pytest.mark.parametrize(
    "text",
    [
        f"run:wrk_{ULID}:events",
        f"worker:usr_{ULID}:lifecycle",
        f"user:org_{ULID}:runs",
        f"org:usr_{ULID}:workers",
        f"run:{ORG}x:events",
        "run:*:events",
        "run:org_:events",
    ],
)
def test_only_some_owners_have_topics_that_can_be_granted_together(text: str) -> None:
    with pytest.raises(Refusal, match="invalid_topic"):
        parse_grant(text)


def test_few_named_topics_are_claimed_as_every_release_reads_them() -> None:
    topics = [Topic(RUN_EVENTS, f"run_{ULID[:-3]}{number:03}") for number in range(MAX_NAMED + 1)]
    few = write_claims(topics[:MAX_NAMED])
    assert (few.version, few.topics, few.ids) == (1, [str(one) for one in topics[:MAX_NAMED]], {})
    many = write_claims(topics)
    assert (many.version, many.topics, many.ids) == (2, (), {"run:*:events": [one.subject_id for one in topics]})
    assert write_claims([AllOf(RUN_EVENTS, ORG)]).version == 2
    with pytest.raises(ValueError, match="a token holds 128"):
        write_claims(topics * 2)


def test_each_version_is_read_by_its_own_claims() -> None:
    both = {"run:*:events": [ORG], "runs:*:of_a_newer_release": ["x"]}
    assert read_claims(GrantClaims(1, [f"run:{RUN}:events"], both)) == grants_of([f"run:{RUN}:events"])
    assert read_claims(GrantClaims(2, [f"run:{RUN}:events"], both)) == grants_of([runs_of(ORG)])
    for version in (0, 3):
        with pytest.raises(Refusal, match="invalid_token"):
            read_claims(GrantClaims(version, [], both))


def test_a_name_in_claims_of_version_1_is_of_one_topic_only() -> None:
    grants = read_claims(GrantClaims(1, [runs_of(ORG)]))
    assert not grants.all_of
    assert f"run:{RUN}:events" not in grants


@pytest.mark.parametrize(
    ("owner", "user", "org", "opened"),
    [
        (ORG, "usr_other", ORG, True),
        (ORG, ME, "org_other", False),
        (ME, ME, ORG, True),
        (ME, "usr_other", ORG, False),
        (ME, ME, "org_other", False),  # mine, and in an org that the token is not for
        ("org_other", ME, "org_other", False),
        (ORG, "", "", False),
        (ME, "", "", False),
    ],
)
def test_an_owners_topics_in_the_tokens_org_are_opened(owner: str, user: str, org: str, opened: bool) -> None:
    grant = AllOf(RUN_EVENTS, owner)
    assert grant.opens(Topic(RUN_EVENTS, RUN), user, org, ORG) is opened
    assert not grant.opens(Topic(WORKER_LIFECYCLE, f"wrk_{ULID}"), user, org, ORG), "of another class"


def test_what_a_token_may_open_is_known_by_the_topics_name() -> None:
    grants = grants_of([runs_of(ORG), f"user:{ME}:runs"])
    assert [f"run:{RUN}:events" in grants, f"user:{ME}:runs" in grants] == [True, True]
    assert [f"user:{ORG}:runs" in grants, runs_of(ORG) in grants, "nonsense" in grants, 1 in grants] == [False] * 4
    assert USER_RUNS.form == "user:*:runs"
