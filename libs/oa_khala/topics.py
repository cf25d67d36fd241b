"""The grammar of topics, and what each class of topic needs. Minting, admission and serving all use this parser.

The grammar itself is in proto/openagents/sync/v1/topic_service.proto.
"""

import re
from dataclasses import dataclass
from typing import Literal

from oa_base.ids import ULID_PATTERN
from oa_base.refusal import Refusal

Source = Literal["runtime", "projector"]

MAX_TOPIC_LENGTH = 160


@dataclass(frozen=True, slots=True)
class TopicClass:
    """What all topics of one form have in common.

    `name` is for logs and metric labels. `required_scope` must be in the token. `source` is the service that
    serves them. `replay_budget` is the maximum number of events that one resume may replay where a snapshot is the
    alternative. `chained`: its events have chain values, so its cursors can be bound to what was applied.
    `owner_prefixes` are the id prefixes of owners whose topics of this class can be granted all together (`grants`).
    """

    name: str
    prefix: str
    id_prefix: str
    suffix: str
    required_scope: str
    source: Source
    replay_budget: int
    chained: bool = False
    owner_prefixes: tuple[str, ...] = ()

    @property
    def form(self) -> str:
        """The form of its topics, with * for the id: `run:*:events`."""
        return f"{self.prefix}*{self.suffix}"


_PEOPLE, _ORGS = ("usr_", "sva_"), ("org_",)
RUN_EVENTS = TopicClass(
    "run_events",
    "run:",
    "run_",
    ":events",
    "runs.read",
    "runtime",
    20_000,
    chained=True,
    owner_prefixes=_PEOPLE + _ORGS,
)
WORKER_LIFECYCLE = TopicClass(
    "worker_lifecycle", "worker:", "wrk_", ":lifecycle", "workers.read", "runtime", 10_000, owner_prefixes=_ORGS
)
USER_RUNS = TopicClass("user_runs", "user:", "usr_", ":runs", "runs.read", "projector", 500)
ORG_RUNS = TopicClass("org_runs", "org:", "org_", ":runs", "runs.read", "projector", 500)
ORG_WORKERS = TopicClass("org_workers", "org:", "org_", ":workers", "workers.read", "projector", 500)
USER_NOTIFICATIONS = TopicClass(
    "user_notifications", "user:", "usr_", ":notifications", "notifications.read", "projector", 500
)
TOPIC_CLASSES = (RUN_EVENTS, WORKER_LIFECYCLE, USER_RUNS, ORG_RUNS, ORG_WORKERS, USER_NOTIFICATIONS)

_PATTERNS = tuple(
    (topic_class, re.compile(f"{topic_class.prefix}({topic_class.id_prefix}{ULID_PATTERN}){topic_class.suffix}"))
    for topic_class in TOPIC_CLASSES
)


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that parsed. `subject_id` is the run, worker, user or org in its name; `str()` gives the name."""

    topic_class: TopicClass
    subject_id: str

    def __str__(self) -> str:
        return f"{self.topic_class.prefix}{self.subject_id}{self.topic_class.suffix}"

    @property
    def required_scope(self) -> str:
        """Scope that a token needs for it."""
        return self.topic_class.required_scope

    @property
    def source(self) -> Source:
        """Service that serves it."""
        return self.topic_class.source


def parse_topic(text: str, *, field: str = "topic") -> Topic:
    """Return the topic that `text` names. Raises Refusal `invalid_topic` naming `field` when it names none."""
    if len(text) <= MAX_TOPIC_LENGTH:
        for topic_class, pattern in _PATTERNS:
            if match := pattern.fullmatch(text):
                return Topic(topic_class, match[1])
    raise Refusal(
        "invalid_topic",
        "there is no topic of this form; one is for example run:run_<ULID>:events or user:usr_<ULID>:runs",
        field=field,
    )


def run_events(run_id: str) -> str:
    """Name of the topic with all events of a run. Raises Refusal `invalid_topic` when the id is not one."""
    return _named(RUN_EVENTS, run_id)


def worker_lifecycle(worker_id: str) -> str:
    """Name of the topic with the life of a worker. Raises Refusal `invalid_topic` when the id is not one."""
    return _named(WORKER_LIFECYCLE, worker_id)


def user_runs(user_id: str) -> str:
    """Name of the topic with the summaries of a user's runs. Raises Refusal `invalid_topic` for another id."""
    return _named(USER_RUNS, user_id)


def org_runs(org_id: str) -> str:
    """Name of the topic with the summaries of an org's runs. Raises Refusal `invalid_topic` for another id."""
    return _named(ORG_RUNS, org_id)


def user_notifications(user_id: str) -> str:
    """Name of the topic with a user's notifications about their runs. Raises Refusal `invalid_topic` for another id."""
    return _named(USER_NOTIFICATIONS, user_id)


def org_workers(org_id: str) -> str:
    """Name of the topic with an org's workers. Raises Refusal `invalid_topic` for another id."""
    return _named(ORG_WORKERS, org_id)


def _named(topic_class: TopicClass, subject_id: str) -> str:
    return str(parse_topic(str(Topic(topic_class, subject_id))))
