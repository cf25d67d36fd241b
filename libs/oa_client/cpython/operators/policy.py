"""Who may do what, and which rule denies it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc.aio

from oa_base.refusal import Refusal
from oa_client.core.models import JsonDocument
from oa_client.core.wire import document
from oa_client.cpython.operators.calls import OperatorCalls
from openagents.common.v1 import principal_pb2
from openagents.control.v1 import policy_service_pb2 as pb
from openagents.control.v1.policy_service_pb2_grpc import PolicyServiceStub

if TYPE_CHECKING:
    from openagents.control.v1.policy_service_pb2_grpc import PolicyServiceAsyncStub

_KINDS = {
    "usr_": principal_pb2.PRINCIPAL_KIND_USER,
    "sva_": principal_pb2.PRINCIPAL_KIND_SERVICE_ACCOUNT,
}
_PREFIX = "POLICY_RULE_"


@dataclass(frozen=True)
class Question:
    """Whether `subject`, with a token of `session_id` (`ses_…` or `apk_…`) for an org, may do what requires `scope`.

    `token_scopes` are those of the token. With `fresh_sign_in`, the sign-in of a session must not be too old. `owner`
    is the person or org that owns the object; empty if nobody does.
    """

    subject: str
    org_id: str
    session_id: str
    scope: str
    token_scopes: Sequence[str]
    session_only: bool = False
    fresh_sign_in: bool = False
    owner: str = ""


@dataclass(frozen=True)
class Answer:
    """The decision. `rule`: the rule that denied, in lower case. `scopes`: what the principal may do now."""

    allowed: bool
    reason: str
    message: str
    rule: str
    scopes: tuple[str, ...]
    document: JsonDocument


class PolicyOperators:
    """PolicyService over a channel, with the operators' token. Raises Refusal `invalid_value`, `unavailable`, …"""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._stub: PolicyServiceAsyncStub = PolicyServiceStub(channel)
        self._calls = OperatorCalls(token)

    async def explain(self, question: Question) -> Answer:
        """Return the decision about a question."""
        answer = await self._calls.done(self._stub.Authorize, _request(question))
        rule = pb.PolicyRule.Name(answer.rule).removeprefix(_PREFIX).lower() if answer.rule else ""
        return Answer(answer.allowed, answer.reason, answer.message, rule, tuple(answer.scopes), document(answer))


def _request(question: Question) -> pb.AuthorizeRequest:
    kind = _KINDS.get(question.subject[:4])
    if kind is None:
        message = "that is neither a person nor a service account; give an id that begins with usr_ or sva_"
        raise Refusal("invalid_value", message, field="subject")
    principal = principal_pb2.Principal(
        kind=kind,
        subject=question.subject,
        org_id=question.org_id,
        scopes=question.token_scopes,
        session_id=question.session_id,
    )
    of_a_person = question.owner.startswith("usr_")
    return pb.AuthorizeRequest(
        principal=principal,
        required_scope=question.scope,
        session_only=question.session_only,
        fresh_sign_in=question.fresh_sign_in,
        owner_user_id=question.owner if of_a_person else "",
        owner_org_id="" if of_a_person else question.owner,
    )
