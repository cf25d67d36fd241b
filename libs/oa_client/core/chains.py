"""Chain values of the topics that a client follows. Topics of runs have one, as `oa_runlog.proof.chain` defines it."""

from __future__ import annotations

from oa_khala.topics import parse_topic
from oa_runlog.proof.chain import chain_next, chain_start


class RunChains:
    """`oa_khala.client.commands.Chains` for clients that follow runs."""

    def start(self, topic: str) -> bytes:
        """Return the value before the first event of a run; empty for other topics."""
        parsed = parse_topic(topic)
        return chain_start(parsed.subject_id) if parsed.topic_class.chained else b""

    def after(self, chain: bytes, payload: bytes) -> bytes:
        """Return the value after one more event."""
        return chain_next(chain, payload)
