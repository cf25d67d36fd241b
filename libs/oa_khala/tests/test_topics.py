"""The grammar of topics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_base.refusal import Refusal
from oa_khala.topics import (
    MAX_TOPIC_LENGTH,
    TOPIC_CLASSES,
    Topic,
    TopicClass,
    org_runs,
    parse_topic,
    run_events,
    user_runs,
    worker_lifecycle,
)

ULID = "01J9ZQ6T5W3M8K2N4P7R1S0V6X"
crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
ulids = st.builds(
    lambda first, rest: first + rest,
    st.sampled_from("01234567"),
    st.text(alphabet=crockford, min_size=25, max_size=25),
)


@given(st.sampled_from(TOPIC_CLASSES), ulids)
def test_every_topic_survives_its_name(topic_class: TopicClass, ulid: str) -> None:
    topic = Topic(topic_class, topic_class.id_prefix + ulid)
    assert parse_topic(str(topic)) == topic
    assert len(str(topic)) <= MAX_TOPIC_LENGTH


@given(st.text(max_size=200))
def test_anything_else_is_an_invalid_topic(text: str) -> None:
    with pytest.raises(Refusal) as caught:
        parse_topic(text, field="topics[3]")
    assert (caught.value.reason, caught.value.field) == ("invalid_topic", "topics[3]")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 2500


@pytest.mark.parametrize(
    "text",
    [
        f"run:run_{ULID}:events\n",
        f" run:run_{ULID}:events",
        f"run:run_{ULID.lower()}:events",
        f"run:run_{ULID[:-1]}:events",
        f"run:run_8{ULID[1:]}:events",
        f"run:run_{ULID[:-1]}U:events",
        f"run:wrk_{ULID}:events",
        f"user:usr_{ULID}:events",
        f"org:org_{ULID}:notifications",
        "run:run_*:events",
        f"run:run_{ULID}:events:run:run_{ULID}:events",
    ],
)
def test_near_misses_do_not_parse(text: str) -> None:
    with pytest.raises(Refusal, match="invalid_topic"):
        parse_topic(text)


def test_a_topic_says_who_serves_it_and_what_it_needs() -> None:
    wanted = {
        run_events(f"run_{ULID}"): ("runtime", "runs.read"),
        worker_lifecycle(f"wrk_{ULID}"): ("runtime", "workers.read"),
        user_runs(f"usr_{ULID}"): ("projector", "runs.read"),
        org_runs(f"org_{ULID}"): ("projector", "runs.read"),
        f"org:org_{ULID}:workers": ("projector", "workers.read"),
        f"user:usr_{ULID}:notifications": ("projector", "notifications.read"),
    }
    got = {text: (parse_topic(text).source, parse_topic(text).required_scope) for text in wanted}
    assert got == wanted


def test_a_name_is_not_made_of_a_bad_id() -> None:
    with pytest.raises(Refusal, match="invalid_topic"):
        run_events("run_1:events,run:run_2")
