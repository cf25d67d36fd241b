"""A client session that is told what happens, command by command."""

from collections.abc import Callable
from typing import ClassVar, TypeVar

from oa_khala import frames
from oa_khala.client.commands import Apply, Chains, Command, Connect, Instant, Send, SyncToken
from oa_khala.client.session import ClientSession
from oa_khala.frames import Cursor, Plan

T = "run:run_01J9ZQ6T5W3M8K2N4P7R1S0V6X:events"
U = "user:usr_01J9ZQ6T5W3M8K2N4P7R1S0V6X:runs"
TTL_MS = 300_000
C = TypeVar("C", bound=Command)


class Driver:
    """A session with a clock; `out` holds the commands of the last call, `applied` all that were ever applied."""

    make: ClassVar[Callable[..., ClientSession]] = ClientSession
    """What makes the session: `record` has others."""

    def __init__(
        self, *topics: str, cursor: Cursor | None = None, chains: Chains | None = None, grants: tuple[str, ...] = ()
    ) -> None:
        self.session = self.make("dev_1", "test/1", chains=chains, grants=grants)
        self.now_ms = 0
        self.applied: list[Apply] = []
        self.out: list[Command] = []
        for topic in topics:
            self.do("subscribe", topic, cursor)

    def do(self, name: str, *arguments: object) -> list[Command]:
        timed = name not in ("stop", "suspended", "unsubscribe")
        self.out = getattr(self.session, name)(*arguments, *([Instant(self.now_ms, 0.5)] if timed else []))
        self.applied += self.only(Apply)
        return self.out

    def frame(self, frame: frames.ServerFrame) -> list[Command]:
        return self.do("frame", self.session.generation, frame)

    def cut(self) -> int:
        """Ends the connection; how long the session then waits, in ms."""
        self.do("disconnected", self.session.generation)
        return self.only(Connect)[0].delay_ms

    def sent(self) -> list[frames.ClientFrame]:
        return [command.frame for command in self.only(Send)]

    def only(self, kind: type[C]) -> list[C]:
        return [command for command in self.out if isinstance(command, kind)]

    def token(self, *topics: str, text: str = "token", refused: tuple[tuple[str, str], ...] = ()) -> list[Command]:
        return self.do("token", SyncToken(text, frozenset(topics), TTL_MS, refused))

    def welcome(self) -> list[Command]:
        return self.frame(frames.Welcome("con_1", 25_000, 60_000, 128, 65_536, 1_000, 1_000 + TTL_MS))

    def open(self, *topics: str) -> "Driver":
        self.do("start")
        self.token(*topics)
        self.do("connected", self.session.generation)
        self.welcome()
        return self

    def following(self, from_seq: int = 0, epoch: str = "e1") -> "Driver":
        self.frame(frames.Subscribed(T, epoch, 0, from_seq, Plan.REPLAY, from_seq))
        return self

    def events(self, *seqs: int) -> list[int]:
        for seq in seqs:
            self.frame(frames.Event(T, seq, b"%d" % seq))
        return [command.cursor.applied_seq for command in self.applied]
