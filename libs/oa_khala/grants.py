"""What a sync token opens: topics one by one, and all topics of a class that belong to an owner.

A grant is written as a topic. With an owner's id in place of the run's or the worker's, it covers all topics that
belong to that owner: `run:org_<ULID>:events`. Control writes grants with this module, the gateway reads them and
admits by them, and clients learn from them what their token may open.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from oa_base.identity import SYNC_CLAIMS_VERSION, SYNC_GRANTS_VERSION
from oa_base.ids import ULID_PATTERN
from oa_base.refusal import Refusal
from oa_khala.topics import RUN_EVENTS, TOPIC_CLASSES, Topic, TopicClass, parse_topic

MAX_GRANTS = 128
"""Maximum number of grants in one token. That many, of any class, fit into a token that every reader accepts."""
MAX_NAMED = 64
"""Maximum number of topics in claims of version 1, which write out each topic."""

_ORG = "org_"


@dataclass(frozen=True, slots=True)
class AllOf:
    """All topics of a class that belong to an owner, present and future; `str()` gives the grant's text."""

    topic_class: TopicClass
    owner_id: str

    def __str__(self) -> str:
        return f"{self.topic_class.prefix}{self.owner_id}{self.topic_class.suffix}"

    @property
    def required_scope(self) -> str:
        """Scope that a token needs for it."""
        return self.topic_class.required_scope

    @property
    def of_org(self) -> bool:
        """Whether the owner is an org, not a member of it."""
        return self.owner_id.startswith(_ORG)

    def opens(self, topic: Topic, owner_user_id: str, owner_org_id: str, org_id: str) -> bool:
        """Whether the grant opens `topic` to a caller in the org `org_id`; the topic's source says who owns it.

        Topics that the owner has in another org stay closed: a token counts only in its own org.
        """
        if topic.topic_class is not self.topic_class or owner_org_id != org_id:
            return False
        return self.owner_id == (owner_org_id if self.of_org else owner_user_id)


_OWNED = tuple(
    (one, re.compile(f"{one.prefix}((?:{'|'.join(one.owner_prefixes)}){ULID_PATTERN}){one.suffix}"))
    for one in TOPIC_CLASSES
    if one.owner_prefixes
)


def parse_grant(text: str) -> Topic | AllOf:
    """Return the topic, or the topics of an owner, that `text` names. Raises Refusal `invalid_topic`."""
    return _all_of(text) or parse_topic(text)


def runs_of(owner_id: str) -> str:
    """The grant for all runs of a person, service account or org. Raises Refusal `invalid_topic` for another id."""
    return str(parse_grant(str(AllOf(RUN_EVENTS, owner_id))))


def _all_of(text: str) -> AllOf | None:
    for topic_class, pattern in _OWNED:
        if match := pattern.fullmatch(text):
            return AllOf(topic_class, match[1])
    return None


@dataclass(frozen=True, slots=True)
class Grants:
    """What a token opens: topics by name, and topics of owners."""

    topics: frozenset[str] = frozenset()
    all_of: frozenset[AllOf] = frozenset()

    def __contains__(self, topic: object) -> bool:
        """Whether it may open the topic of this name. Whether it does depends on the owner, which the source knows."""
        if topic in self.topics:
            return True
        if not self.all_of or not isinstance(topic, str):
            return False
        try:
            topic_class = parse_topic(topic).topic_class
        except Refusal:
            return False
        return any(one.topic_class is topic_class for one in self.all_of)


def grants_of(texts: Iterable[str]) -> Grants:
    """Return the grants of these texts. A text that names no topics stays among the topics, and opens nothing else."""
    read = {text: _all_of(text) for text in texts}
    topics = frozenset(text for text, all_of in read.items() if all_of is None)
    return Grants(topics, frozenset(all_of for all_of in read.values() if all_of is not None))


# ------------------------------------------------------------------------------------------------- in claims


@dataclass(frozen=True, slots=True)
class GrantClaims:
    """Grants as in SyncTokenClaims: `topics` in version 1, `ids` by form ("run:*:events") in version 2."""

    version: int
    topics: Sequence[str] = ()
    ids: Mapping[str, Sequence[str]] = field(default_factory=dict)


def write_claims(grants: Sequence[Topic | AllOf]) -> GrantClaims:
    """Return the claims for at most `MAX_GRANTS` grants: of version 1 if it can express them, for old readers."""
    if len(grants) > MAX_GRANTS:
        raise ValueError(f"{len(grants)} grants, and a token holds {MAX_GRANTS}")
    if len(grants) <= MAX_NAMED and all(isinstance(one, Topic) for one in grants):
        return GrantClaims(SYNC_CLAIMS_VERSION, [str(one) for one in grants])
    ids: defaultdict[str, list[str]] = defaultdict(list)
    for one in grants:
        ids[one.topic_class.form].append(one.owner_id if isinstance(one, AllOf) else one.subject_id)
    return GrantClaims(SYNC_GRANTS_VERSION, ids=ids)


def read_claims(claims: GrantClaims) -> Grants:
    """Return what claims grant; an unknown form grants nothing. Raises Refusal `invalid_token` for an unknown
    version."""
    if claims.version == SYNC_CLAIMS_VERSION:
        return Grants(frozenset(claims.topics))
    if claims.version == SYNC_GRANTS_VERSION:
        known = (one for one in TOPIC_CLASSES if one.form in claims.ids)
        return grants_of(f"{one.prefix}{each}{one.suffix}" for one in known for each in claims.ids[one.form])
    versions = f"{SYNC_CLAIMS_VERSION} and {SYNC_GRANTS_VERSION}"
    text = f"the token's claims are not of the versions {versions}; get one of this release's control"
    raise Refusal("invalid_token", text)
