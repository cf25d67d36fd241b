"""What a sync token grants, and whether it grants a topic. Values only: the signature has already been checked."""

from dataclasses import dataclass

from oa_base.identity import TokenHolder
from oa_base.refusal import Refusal
from oa_khala.grants import AllOf, Grants
from oa_khala.topics import WORKER_LIFECYCLE, Topic, parse_topic


@dataclass(frozen=True, slots=True)
class Grant:
    """A verified sync token: `topics` by name, and `all_of` owners. `expires_at_ms` is since the Unix epoch."""

    subject: str
    org_id: str
    scopes: frozenset[str]
    topics: frozenset[str]
    session_id: str
    device_id: str
    jti: str
    expires_at_ms: int
    issued_s: float = 0.0
    """When the token was issued, in seconds since the Unix epoch."""
    all_of: frozenset[AllOf] = frozenset()

    @property
    def holder(self) -> TokenHolder:
        """Whose token it is."""
        return TokenHolder(self.subject, self.org_id, self.session_id, self.issued_s)

    @property
    def grants(self) -> Grants:
        """What it may open."""
        return Grants(self.topics, self.all_of)


GRANTS_NOTHING = Grant("", "", frozenset(), frozenset(), "", "", "", 0)
"""The grant before a token has been accepted."""


def admit(grant: Grant, text: str, *, field: str = "topic") -> Topic:
    """Return the topic that `text` names, if `grant` may open it; `check_owner` says whether it does.

    Raises Refusal `invalid_topic`, `forbidden_topic` (not in the token) or `missing_scope`, in this order.
    """
    topic = parse_topic(text, field=field)
    if text not in grant.grants:
        raise _forbidden(field)
    if topic.required_scope not in grant.scopes:
        raise Refusal(
            "missing_scope", f"the topic needs the scope {topic.required_scope}; get a token that has it", field=field
        )
    return topic


def check_owner(grant: Grant, topic: Topic, owner_user_id: str, owner_org_id: str) -> None:
    """Raise Refusal unless `grant` opens `topic`, which its source says belongs to these owners.

    `owner_mismatch` if control knew the owner when it named the topic, and the topic belongs to neither the subject
    nor the org any more; `forbidden_topic` if the owner is known only now.
    """
    if str(topic) in grant.topics:
        of_person = owner_user_id != "" and owner_user_id == grant.subject
        of_org = owner_org_id != "" and owner_org_id == grant.org_id
        opened = of_person or of_org
    else:
        opened = any(one.opens(topic, owner_user_id, owner_org_id, grant.org_id) for one in grant.all_of)
    if not opened and _was_known(grant, topic):
        raise Refusal("owner_mismatch", "the topic belongs to somebody else; sign in as its owner")
    if not opened:
        raise _forbidden()


def concealed(grant: Grant, topic: Topic, refusal: Refusal) -> Refusal:
    """Return `refusal` as the client hears it: unless control knew the owner, a topic that isn't there is refused like
    one that belongs to somebody else."""
    return refusal if _was_known(grant, topic) or refusal.reason != "not_found" else _forbidden()


def _was_known(grant: Grant, topic: Topic) -> bool:
    """Whether control knew the owner of `topic`: it names topics whose owners it knows, and workers without asking."""
    return str(topic) in grant.topics and topic.topic_class is not WORKER_LIFECYCLE


def _forbidden(field: str = "") -> Refusal:
    return Refusal("forbidden_topic", "the token does not grant this topic; get one that does", field=field)


def check_device(grant: Grant, device_id: str) -> None:
    """Raise Refusal `invalid_token` when the token was minted for a device other than the one that says Hello."""
    if grant.device_id and grant.device_id != device_id:
        raise Refusal(
            "invalid_token", "the token belongs to another device; get one for this device", field="hello.device_id"
        )


def check_time_left(grant: Grant, now_ms: int) -> None:
    """Raise Refusal `token_expired` when the grant has ended, so that no connection opens only to close at once."""
    if grant.expires_at_ms <= now_ms:
        raise Refusal("token_expired", "the token has expired; get a new one")


def check_same_session(old: Grant, new: Grant) -> None:
    """Raise Refusal `invalid_token` unless a token continues the same session of the same subject in the same org."""
    of_old = old.subject, old.org_id, old.session_id, old.device_id
    if of_old != (new.subject, new.org_id, new.session_id, new.device_id):
        message = "a connection can't change its session or its org; open another"
        raise Refusal("invalid_token", message, field="refresh_token.token")
