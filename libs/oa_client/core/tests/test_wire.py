"""What the contracts' messages come to."""

from __future__ import annotations

import pytest

from oa_base.refusal import Refusal
from oa_client.core import wire
from openagents.common.v1 import errors_pb2
from openagents.control.v1.sync_token_service_pb2 import MintSyncTokenResponse, TopicGrant
from openagents.runtime.v1.run_pb2 import RunStatus

NOW_MS = 1_795_366_653_123


@pytest.mark.parametrize(("lives_ms", "expires_in_ms"), [(300_000, 300_000), (1, 1), (0, 0), (-5_000, 0)])
def test_a_sync_token_lives_for_what_is_left_of_its_time(lives_ms: int, expires_in_ms: int) -> None:
    message = MintSyncTokenResponse(token="t", khala_url="ws://k")
    message.expire_time.FromMilliseconds(NOW_MS + lives_ms)
    assert wire.sync_grant(message, NOW_MS).expires_in_ms == expires_in_ms


def test_a_sync_token_tells_what_it_carries_and_why_not_the_rest() -> None:
    grants = [
        TopicGrant(topic="a", granted=True),
        TopicGrant(topic="b", reason=errors_pb2.REASON_NOT_FOUND),
        TopicGrant(topic="c", reason=errors_pb2.REASON_UNSPECIFIED),
        TopicGrant(topic="d", reason=9999),  # type: ignore[arg-type]
    ]
    grant = wire.sync_grant(MintSyncTokenResponse(grants=grants), NOW_MS)
    assert grant.topics == {"a"}
    assert grant.refused == (("b", "not_found"), ("c", "forbidden_topic"), ("d", "forbidden_topic"))


def test_a_status_is_one_word_of_the_contract() -> None:
    assert wire.RUN_STATUSES == ("created", "running", "canceling", "succeeded", "failed", "canceled")
    assert [wire.status_number(status) for status in wire.RUN_STATUSES] == RunStatus.values()[1:]
    for wrong in ("", "gone", "RUN_STATUS_RUNNING"):
        with pytest.raises(Refusal) as caught:
            wire.status_number(wrong)
        assert (caught.value.reason, caught.value.field) == ("invalid_enum", "status")
