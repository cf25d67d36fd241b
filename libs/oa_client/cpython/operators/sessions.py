"""Where people are signed in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc.aio

from oa_client.core.models import Session
from oa_client.core.wire import session
from oa_client.cpython.operators.calls import OperatorCalls
from openagents.control.v1 import installation_session_service_pb2 as pb
from openagents.control.v1.installation_session_service_pb2_grpc import InstallationSessionServiceStub

if TYPE_CHECKING:
    from openagents.control.v1.installation_session_service_pb2_grpc import InstallationSessionServiceAsyncStub


class SessionOperators:
    """InstallationSessionService over a channel, with the operators' token. People are named by id or address.

    Raises Refusal `not_found`, `invalid_value`, `unavailable`, …
    """

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._stub: InstallationSessionServiceAsyncStub = InstallationSessionServiceStub(channel)
        self._calls = OperatorCalls(token)

    async def list(self, person: str) -> Sequence[Session]:
        """Return the person's sessions, newest first, including revoked ones for 30 days."""
        request = pb.ListInstallationSessionsRequest(person=person)
        answer = await self._calls.done(self._stub.ListInstallationSessions, request)
        return [session(one) for one in answer.sessions]

    async def revoke(self, person: str, session_id: str = "") -> Sequence[str]:
        """End a session of the person, or all, and return the ids of the sessions that this ended."""
        request = pb.RevokeInstallationSessionsRequest(person=person, session_id=session_id)
        answer = await self._calls.done(self._stub.RevokeInstallationSessions, request)
        return tuple(answer.session_ids)
