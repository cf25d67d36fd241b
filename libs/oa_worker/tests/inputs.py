"""What people say to a run, for adapters that hear it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from oa_base.refusal import Refusal
from oa_worker.sdk.adapter import Assignment, News
from oa_worker.tests.commands import assignment
from openagents.runtime.v1.event_pb2 import EventBody, InputReceived, RunEvent
from openagents.runtime.v1.worker_service_pb2 import HeldLease

END = '{"end":true}'


class Inputs:
    """What people say to one run, for as many attempts as read it."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.news = News()
        self.read_up_to = 0
        self.refusal: Refusal | None = None

    def say(self, text: str) -> None:
        self.texts.append(text)
        self.news.tell()

    async def read(
        self, lease: HeldLease, after_seq: int, types: Sequence[str], newest_only: bool = False
    ) -> AsyncIterator[bytes]:
        assert list(types) == ["input.received"]
        if self.refusal is not None:
            raise self.refusal
        for seq, text in enumerate(list(self.texts), start=1):
            if seq > after_seq:
                self.read_up_to = seq
                body = EventBody(input_received=InputReceived(input_json=text))
                yield RunEvent(seq=seq, body=body).SerializeToString()

    def assignment(self, *argv: str, timeout_ms: int = 0) -> Assignment:
        plain = assignment(*argv, timeout_ms=timeout_ms)
        plain.spec.exec.stdin = True
        return Assignment(plain.run_id, 1, 1, plain.spec, plain.cancel, self.read, news=self.news)
