"""A session that is told whatever a gateway, a network, a device and control may say, much of it wrong, by a seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from oa_khala import frames
from oa_khala.client.commands import Command, Connect, Instant, NeedToken, Send, SyncToken
from oa_khala.client.tests.transcripts import Concatenated, Recorded
from oa_khala.frames import Cursor, Plan

RUN_A = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
RUN_B = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6Y:events"
LIST = "user:usr_01J9ZQ6T5W3M8K2N4P7R1S0V6X:runs"
ALL_RUNS = "run:org_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
ALL_WORKERS = "worker:org_01J9ZQ6T5W3M8K2N4P7R1S0V6X:lifecycle"
TOPICS = (RUN_A, RUN_B, LIST)
EPOCHS = ("e1", "e1", "e1", "e2")
TOPIC_ERRORS = (
    "epoch_mismatch", "retention_floor_breach", "replay_budget_exceeded", "cursor_ahead_of_head", "unavailable",
    "rate_limited", "forbidden_topic", "owner_mismatch", "archive_damaged", "reauth_required", "internal", "from_2040",
)  # fmt: skip
ENDS = (
    "", "", "", "draining", "slow_consumer", "idle_timeout", "reauth_required", "token_replayed", "token_revoked",
    "overloaded", "rate_limited", "from_2040",
)  # fmt: skip
FINAL_ENDS = ("protocol_violation", "origin_not_allowed", "unsupported_protocol_version")
MINT_ERRORS = (
    "unavailable", "unavailable", "rate_limited", "reauth_required", "missing_scope", "surface_policy_denied",
)  # fmt: skip


class Walk:
    """One walk. What a command asks for waits in `due`, and is mostly what happens next."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        chains = Concatenated() if self.rng.random() < 0.5 else None
        grants = ((), (), (ALL_RUNS,), (ALL_RUNS, ALL_WORKERS))[self.rng.randrange(4)]
        self.session = Recorded("dev_1", "test/1", chains=chains, grants=grants)
        self.now_ms = 0
        self.tokens = 0
        self.due: list[Callable[[], None]] = []

    def go(self, steps: int) -> dict[str, Any]:
        """The transcript of so many steps; of fewer, if the session ends before."""
        self.tell("subscribe", RUN_A, None, self.rng.random() < 0.5)
        self.tell("start")
        while len(self.session.steps) < steps and self.session.steps[-5:][0]["state"] != "stopped":
            self.now_ms += self.rng.choice((0, 0, 0, 1, 20, 400))
            if self.due and self.rng.random() < 0.6:
                self.due.pop(self.rng.randrange(len(self.due)))()
            else:
                self.rng.choices(*zip(*self.noise(), strict=True))[0]()
        return self.session.transcript()

    def tell(self, call: str, *args: Any, timed: bool = True) -> None:
        """One call, and what its commands ask for."""
        at = [Instant(self.now_ms, round(self.rng.random(), 3))] if timed else []
        # Where the time stands among the arguments, if not at the end.
        place = {"disconnected": 1, "subscribe": 2}.get(call, len(args))
        given = [*args[:place], *at, *args[place:]]
        for command in getattr(self.session, call)(*given):
            self.heed(command)

    def heed(self, command: Command) -> None:
        """What whoever drives the session, or a gateway, makes of a command."""
        match command:
            case Connect():
                self.due.append(lambda: self.connect(command.generation))
            case NeedToken():
                self.due.append(lambda: self.mint(command.topics))
            case Send(generation=generation, frame=frames.Hello()):
                self.due.append(lambda: self.frame(self.welcome(), generation))
            case Send(generation=generation, frame=frames.Subscribe(topics=topics)):
                for topic, cursor in topics:
                    self.due.append(lambda topic=topic, cursor=cursor: self.serve(topic, cursor, generation))  # type: ignore[misc]
            case _:
                pass

    # -------------------------------------------------------------------------------------------- what is due

    def connect(self, generation: int) -> None:
        """An attempt to connect."""
        if self.rng.random() < 0.85:
            self.tell("connected", generation)
        else:
            self.tell("disconnected", generation, self.rng.choice(ENDS), "no", self.rng.choice((0, 700)))

    def mint(self, wanted: frozenset[str]) -> None:
        """Control answers."""
        if self.rng.random() < 0.15:
            self.tell("no_token", self.rng.choice(MINT_ERRORS), "no")
            return
        self.tokens += 1
        granted = frozenset(topic for topic in sorted(wanted) if self.rng.random() < 0.9)
        refused = tuple((topic, "owner_mismatch") for topic in sorted(wanted - granted) if self.rng.random() < 0.5)
        lives_ms = self.rng.choice((300_000, 300_000, 40_000, -5))
        self.tell("token", SyncToken(f"token {self.tokens}", granted, lives_ms, refused))

    def welcome(self) -> frames.Welcome:
        """WELCOME of some gateway."""
        left_ms = self.rng.choice((300_000, 60_000, 0))
        return frames.Welcome("con_1", self.rng.choice((25_000, 1_000)), 60_000, 128, 65_536, 1_000, 1_000 + left_ms)

    def serve(self, topic: str, cursor: Cursor | None, generation: int) -> None:
        """A gateway answers one topic of Subscribe, mostly as it should, and sends what follows."""
        if self.rng.random() < 0.15:
            self.frame(self.error(topic), generation)
            return
        at = cursor or Cursor(self.rng.choice(EPOCHS), self.rng.choice((0, 0, 3)))
        plan = self.rng.choice((Plan.LIVE, Plan.REPLAY, Plan.REPLAY, Plan.REPLAY, Plan.SNAPSHOT))
        from_seq = at.applied_seq + self.rng.choice((0, 0, 0, 0, 1, 5))
        epoch = at.epoch if self.rng.random() < 0.95 else "e3"
        chain = self.rng.choice((b"", b"\x07" * 32)) if plan is Plan.SNAPSHOT else b""
        floor = from_seq if cursor is None and self.rng.random() < 0.9 else 0
        self.frame(frames.Subscribed(topic, epoch, floor, from_seq + 3, plan, from_seq, chain), generation)
        if plan is Plan.SNAPSHOT and self.rng.random() < 0.9:
            seq = from_seq + self.rng.choice((0, 0, 0, 1))
            self.snapshot(topic, seq, generation)
        for seq in range(from_seq + 1, from_seq + 4):
            if self.rng.random() < 0.9:
                self.frame(frames.Event(topic, seq, b"%d" % seq), generation)
        self.frame(frames.CaughtUp(topic, from_seq + 3), generation)

    def snapshot(self, topic: str, seq: int, generation: int) -> None:
        """A snapshot, whole or in parts, of which one may be missing or come twice."""
        parts = self.rng.choice((0, 0, 1, 2, 3))
        if not parts:
            self.frame(frames.Snapshot(topic, seq, b"all of it"), generation)
        for part in range(1, parts + 1):
            for _ in range(self.rng.choice((1, 1, 1, 1, 1, 0, 2))):
                self.frame(frames.Snapshot(topic, seq, b"part %d" % part, part=part, parts=parts), generation)

    # -------------------------------------------------------------------------------------------- what just happens

    def noise(self) -> list[tuple[Callable[[], None], int]]:
        """What may happen at any time, each with its weight."""
        return [
            (lambda: self.frame(self.some_frame()), 40),
            (lambda: self.frame(self.some_frame(), self.session.generation - 1), 2),
            (self.time, 20),
            (lambda: self.tell("disconnected", self.session.generation, self.rng.choice(ENDS)), 5),
            (lambda: self.tell("subscribe", self.rng.choice(TOPICS), self.cursor(), self.rng.random() < 0.5), 6),
            (lambda: self.tell("unsubscribe", self.rng.choice(TOPICS), timed=False), 2),
            (lambda: self.tell("rewind", self.rng.choice(TOPICS), self.cursor()), 2),
            (lambda: self.tell("suspended", timed=False), 2),
            (lambda: self.tell("resumed"), 6),
            (self.end_for_good, 1),
        ]

    def time(self) -> None:
        """Time passes: often up to the next deadline."""
        wake_at_ms = self.session.wake_at_ms
        if wake_at_ms is not None and self.rng.random() < 0.6:
            self.now_ms = max(self.now_ms, wake_at_ms + self.rng.choice((-1, 0)))
        elif self.rng.random() < 0.1:
            self.now_ms += 60_000
        self.tell("timer")

    def end_for_good(self) -> None:
        """One of the ways in which a session may end; most walks go on without."""
        if self.rng.random() < 0.9:
            self.tell("timer")
        elif self.rng.random() < 0.5:
            self.tell("stop", timed=False)
        else:
            self.frame(frames.ErrorFrame("", self.rng.choice(FINAL_ENDS), "no"))

    def frame(self, frame: frames.ServerFrame, generation: int | None = None) -> None:
        """A frame comes."""
        self.tell("frame", self.session.generation if generation is None else generation, frame)

    def some_frame(self) -> frames.ServerFrame:
        """Anything that a gateway may send, near to where the topic stands."""
        topic = self.rng.choice(TOPICS)
        known = self.session.cursor(topic)
        near = max(1, (known.applied_seq if known else 0) + self.rng.choice((-1, 0, 1, 1, 1, 1, 2)))
        epoch = known.epoch if known and self.rng.random() < 0.9 else self.rng.choice(EPOCHS)
        event = frames.Event(topic, near, b"%d" % near)
        return self.rng.choice(
            (
                event, event, event, event, event,
                frames.CaughtUp(topic, max(0, near - 1)),
                frames.Heartbeat((frames.TopicHead(topic, near, epoch),), 0),
                frames.Heartbeat((frames.TopicHead(topic, near, epoch, source_away=True),), 0, 1),
                frames.Subscribed(topic, epoch, 0, near, self.rng.choice(tuple(Plan)), near - 1),
                frames.Snapshot(topic, near, b"all of it"),
                frames.Snapshot(topic, near, b"a part", part=self.rng.choice((1, 2)), parts=2),
                self.error(topic),
                frames.ErrorFrame("", self.rng.choice(ENDS[3:]), "no", retry_after_ms=self.rng.choice((0, 900))),
                frames.Draining(self.rng.choice((0, 2_000))),
                self.welcome(),
                frames.UnknownFrame(99),
            )
        )  # fmt: skip

    def error(self, topic: str) -> frames.ErrorFrame:
        """ERROR of a topic."""
        reason = self.rng.choice(TOPIC_ERRORS)
        return frames.ErrorFrame(topic, reason, "no", retry_after_ms=self.rng.choice((0, 0, 600)))

    def cursor(self) -> Cursor | None:
        """A stored cursor, or none."""
        return self.rng.choice((None, Cursor("e1", 2), Cursor("e2", 1, b"\x01" * 32)))


def walk(seed: int, steps: int) -> dict[str, Any]:
    """The transcript of a walk of about so many steps, at most."""
    return Walk(seed).go(steps)
