"""RevocationService: what was revoked, for the services that take tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from openagents.control.v1 import revocation_service_pb2 as pb
from openagents.control.v1.revocation_service_pb2_grpc import RevocationServiceServicer
from services.control.revocations.app import RevocationFeed
from services.control.revocations.domain import PlaceChange, Recorded

_CHANGES = {
    PlaceChange.NONE: pb.PLACE_CHANGE_UNSPECIFIED,
    PlaceChange.LOST: pb.PLACE_CHANGE_LOST,
    PlaceChange.BACK: pb.PLACE_CHANGE_BACK,
}


class RevocationApi(RevocationServiceServicer):
    """The methods of RevocationService."""

    def __init__(self, feed: RevocationFeed) -> None:
        self._feed = feed

    async def WatchRevocations(
        self, request: pb.WatchRevocationsRequest, context: Any
    ) -> AsyncIterator[pb.WatchRevocationsResponse]:
        """All after a position, and then each new one."""
        async with aclosing(self._feed.follow(request.after_position)) as pages:
            async for page in pages:
                items = [message_of(one) for one in page.items]
                yield pb.WatchRevocationsResponse(revocations=items, position=page.position, caught_up=page.caught_up)


def message_of(one: Recorded) -> pb.Revocation:
    """What is sent of a revocation."""
    revocation = one.revocation
    message = pb.Revocation(
        position=one.position,
        session_id=revocation.session_id,
        subject=revocation.subject,
        org_id=revocation.org_id,
        revoke_time=_time(one.revoked_at),
        reason=revocation.reason,
        place_change=_CHANGES[revocation.place_change],
    )
    if revocation.issued_before is not None:
        message.issued_before.CopyFrom(_time(revocation.issued_before))
    return message


def _time(when: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(when)
    return stamp
