"""One topic of a client session: exactly-once application, holes, stale cursors.

The rule that matters: an event is applied only when its seq is `applied + 1` in the cursor's own epoch. An event at or
below `applied` is a repetition and is dropped; one above is a hole, and the topic is subscribed again from `applied`.
"""

from dataclasses import dataclass, field
from enum import Enum

from oa_base.backoff import RECONNECT
from oa_base.catalogue import ClientAction, is_reason, reason_info
from oa_khala.client.commands import (
    Apply,
    Chains,
    ClientLimits,
    Command,
    Instant,
    Live,
    NoChains,
    Resync,
    TopicFailed,
)
from oa_khala.frames import CaughtUp, Cursor, ErrorFrame, Event, Plan, Snapshot, Subscribed, TopicHead

TopicFrame = Event | Snapshot | Subscribed | CaughtUp | ErrorFrame


class Phase(Enum):
    """Where a topic stands on the current connection."""

    IDLE = "idle"  # to be subscribed when the connection and the token allow
    ASKED = "asked"  # Subscribe is out; what arrives before SUBSCRIBED belongs to an earlier one
    FOLLOWING = "following"  # SUBSCRIBED came
    AWAITING_SNAPSHOT = "awaiting_snapshot"  # SUBSCRIBED with a snapshot plan came
    WAITING = "waiting"  # refused for now; asked again at `retry_at_ms`
    FAILED = "failed"  # refused for good


class Next(Enum):
    """What the session does with the topic after a frame."""

    NOTHING = "nothing"
    ASK = "ask"  # subscribe again, from the cursor
    RETRY = "retry"  # subscribe again after a delay
    RECONNECT = "reconnect"  # the connection is useless for it


# What a topic's error asks for, by the catalogue's action. A topic with any other action is refused for good.
_ON_ERROR = {
    ClientAction.RESYNC: Next.ASK,
    ClientAction.RETRY: Next.RETRY,
    ClientAction.RECONNECT: Next.RECONNECT,
    ClientAction.REAUTHENTICATE: Next.RECONNECT,
    ClientAction.REREAD: Next.RETRY,
}


def action_of(reason: str) -> ClientAction:
    """Return the catalogue's action; a reason from a newer server is worth another try."""
    return reason_info(reason).action if is_reason(reason) else ClientAction.RETRY


@dataclass(slots=True)
class Counts:
    """Frames that a session has taken from gateways.

    `replayed` are applied frames that were history: they came between SUBSCRIBED and CAUGHT_UP. `repaired` are those
    that came because something had been missing. `repeated` were dropped. `unknown` came from a newer gateway.
    """

    applied: int = 0
    replayed: int = 0
    repaired: int = 0
    repeated: int = 0
    unknown: int = 0


@dataclass(slots=True)
class ClientTopic:
    """State of one topic. `cursor`: how far it has been handed out to be applied; None before the first SUBSCRIBED."""

    name: str
    cursor: Cursor | None
    chains: Chains = field(default_factory=NoChains)
    takes_snapshots: bool = False
    max_snapshot_bytes: int = ClientLimits().max_snapshot_bytes
    counts: Counts = field(default_factory=Counts)
    phase: Phase = Phase.IDLE
    retry_at_ms: int = 0
    attempts: int = 0
    repairs: int = 0
    # The applied seq at the last heartbeat that reported a newer head; -1 when none did.
    behind_at: int = -1
    # The cursor after the announced snapshot; until it is applied, there is no cursor.
    snapshot_at: Cursor | None = None
    # Its parts that have come. None of them counts before the last one is there.
    parts: list[bytes] = field(default_factory=list)
    of_parts: int = 0
    # Until CAUGHT_UP: whether history comes, and whether it comes because something was missing.
    replaying: bool = False
    repairing: bool = False

    def frame(self, frame: TopicFrame) -> tuple[list[Command], Next]:
        """Handle a frame about the topic."""
        match frame:
            case Event():
                return self.event(frame)
            case Snapshot():
                return self.snapshot(frame)
            case Subscribed():
                return self.subscribed(frame)
            case CaughtUp():
                return self.caught_up(frame)
            case ErrorFrame():
                return self.refused(frame)

    def asked(self) -> None:
        """Note that Subscribe has been sent."""
        self.phase = Phase.ASKED
        self.behind_at = -1
        self.parts.clear()

    def cut(self) -> None:
        """Note that the connection is gone."""
        if self.phase is not Phase.FAILED:
            self.phase = Phase.IDLE
        self.behind_at = -1
        self.parts.clear()

    def subscribed(self, frame: Subscribed) -> tuple[list[Command], Next]:
        """Handle SUBSCRIBED: delivery starts at `from_seq + 1` in `epoch`, which must continue what was applied."""
        if self.phase in (Phase.IDLE, Phase.WAITING, Phase.FAILED):
            return [], Next.NOTHING
        if self._answers_another(frame):
            return [], self._repair()
        if self.cursor is not None and frame.epoch != self.cursor.epoch:
            self.cursor = None
            return [Resync(self.name, "epoch_mismatch")], self._repair()
        self.parts.clear()
        chain = frame.chain if frame.from_seq else self.chains.start(self.name)
        start = Cursor(frame.epoch, frame.from_seq, chain)
        self.replaying = True
        if frame.plan is Plan.SNAPSHOT:
            self.phase, self.snapshot_at = Phase.AWAITING_SNAPSHOT, start
        else:
            self.phase, self.cursor = Phase.FOLLOWING, self.cursor or start
        return [], Next.NOTHING

    def _answers_another(self, frame: Subscribed) -> bool:
        """Whether it is the answer to an earlier Subscribe, which had another cursor: delivery would leave something
        out, or begin with a snapshot although there is a cursor."""
        if self.cursor is None:
            return frame.plan is not Plan.SNAPSHOT and frame.from_seq > frame.floor
        begins_later = frame.plan is Plan.SNAPSHOT or frame.from_seq > self.cursor.applied_seq
        return frame.epoch == self.cursor.epoch and begins_later

    def snapshot(self, frame: Snapshot) -> tuple[list[Command], Next]:
        """Handle SNAPSHOT: the whole state as of `seq` or its next part, accepted only if a snapshot was announced."""
        if self.phase is not Phase.AWAITING_SNAPSHOT or self.snapshot_at is None:
            return [], Next.NOTHING
        if frame.seq != self.snapshot_at.applied_seq or not self._is_next(frame):
            return [], self._repair()
        self.of_parts = frame.parts
        self.parts.append(frame.payload)
        if sum(map(len, self.parts)) > self.max_snapshot_bytes:
            return self._too_large()
        if frame.part < frame.parts:
            return [], Next.NOTHING
        payload = b"".join(self.parts)
        self.parts.clear()
        self.phase = Phase.FOLLOWING
        self._progress(self.snapshot_at)
        return [Apply(self.name, self.snapshot_at, payload, frame.schema_version, snapshot=True)], Next.NOTHING

    def _is_next(self, frame: Snapshot) -> bool:
        if self.parts:
            return frame.part == len(self.parts) + 1 and frame.parts == self.of_parts
        return frame.part == min(frame.parts, 1)

    def _too_large(self) -> tuple[list[Command], Next]:
        """Fail the topic for good: a new snapshot would be as large."""
        self.parts.clear()
        self.phase = Phase.FAILED
        text = f"the topic's snapshot is larger than {self.max_snapshot_bytes} bytes; follow it without snapshots"
        return [TopicFailed(self.name, "payload_too_large", text)], Next.NOTHING

    def event(self, frame: Event) -> tuple[list[Command], Next]:
        """Handle EVENT: the next one is applied, an old one is dropped, one too far ahead is a hole."""
        if self.phase is not Phase.FOLLOWING or self.cursor is None:
            return [], Next.NOTHING
        if frame.seq <= self.cursor.applied_seq:
            self.counts.repeated += 1
            return [], Next.NOTHING
        if frame.seq > self.cursor.applied_seq + 1:
            return [], self._missing()
        before = self.cursor
        chain = self.chains.after(before.chain, frame.payload) if before.chain else b""
        self._progress(Cursor(before.epoch, frame.seq, chain))
        apply = Apply(self.name, self.cursor, frame.payload, frame.schema_version, follows=before.chain)
        return [apply], Next.NOTHING

    def caught_up(self, frame: CaughtUp) -> tuple[list[Command], Next]:
        """Handle CAUGHT_UP: true only if everything up to its seq has been applied; otherwise events are missing."""
        if self.phase is not Phase.FOLLOWING or self.cursor is None:
            return [], Next.NOTHING
        if frame.seq > self.cursor.applied_seq:
            return [], self._missing()
        self.attempts = 0
        self.replaying = self.repairing = False
        return [Live(self.name, self.cursor.applied_seq)], Next.NOTHING

    def head(self, head: TopicHead) -> Next:
        """Handle a head in a HEARTBEAT: being behind twice in a row without progress means that a tail was missed."""
        if self.phase is not Phase.FOLLOWING or self.cursor is None:
            return Next.NOTHING
        if head.epoch != self.cursor.epoch or head.head <= self.cursor.applied_seq:
            self.behind_at = -1
            return Next.NOTHING
        if self.behind_at == self.cursor.applied_seq:
            return self._missing()
        self.behind_at = self.cursor.applied_seq
        return Next.NOTHING

    def refused(self, frame: ErrorFrame) -> tuple[list[Command], Next]:
        """Handle ERROR about this topic: the gateway no longer serves it on this connection."""
        if self.phase in (Phase.IDLE, Phase.FAILED):
            return [], Next.NOTHING
        action = action_of(frame.reason)
        what = _ON_ERROR.get(action)
        if what is None:
            self.phase = Phase.FAILED
            return [TopicFailed(self.name, frame.reason, frame.message)], Next.NOTHING
        self.phase = Phase.IDLE
        if action is not ClientAction.RESYNC:
            return [], what
        had_state, self.cursor = self.cursor is not None, None
        return ([Resync(self.name, frame.reason)] if had_state else []), self._repair()

    def patience(self, then: Next, max_repairs: int) -> Next:
        """Return what to do instead of `then` if asking at once hasn't helped: ask later, and then another gateway."""
        if then is not Next.ASK or self.repairs <= max_repairs:
            return then
        self.repairs = 0
        return Next.RETRY if self.attempts < max_repairs else Next.RECONNECT

    def back_off(self, at: Instant, retry_after_ms: int) -> int:
        """Count one more failed attempt. Returns how long to wait before the next, in ms."""
        wait_ms = max(RECONNECT.wait_ms(self.attempts, at.jitter), retry_after_ms)
        self.attempts += 1
        return wait_ms

    def wait(self, until_ms: int) -> None:
        """Ask for the topic again at `until_ms`."""
        self.phase, self.retry_at_ms = Phase.WAITING, until_ms

    def rewind(self, cursor: Cursor | None) -> Next:
        """Continue from `cursor`, where the store actually is."""
        self.cursor = cursor
        return Next.NOTHING if self.phase in (Phase.IDLE, Phase.WAITING, Phase.FAILED) else self._repair()

    def _progress(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.repairs = self.attempts = 0
        self.behind_at = -1
        self.counts.applied += 1
        self.counts.replayed += self.replaying
        self.counts.repaired += self.repairing

    def _missing(self) -> Next:
        self.repairing = True
        return self._repair()

    def _repair(self) -> Next:
        self.phase = Phase.IDLE
        self.parts.clear()
        self.repairs += 1
        return Next.ASK
