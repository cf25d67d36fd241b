"""The connections of a client session, one after the other. Each has a token and is given up when it is useless."""

from __future__ import annotations

from collections.abc import Collection

from oa_base.catalogue import ClientAction
from oa_khala.client.commands import (
    ClientLimits,
    Command,
    Connect,
    Disconnect,
    Instant,
    Send,
    SessionFailed,
)
from oa_khala.client.deadlines import Deadlines, Reconnecting
from oa_khala.client.states import State, Step, after, allows
from oa_khala.client.subscriptions import Subscriptions
from oa_khala.client.tokens import Tokens
from oa_khala.client.topics import action_of
from oa_khala.frames import ClientFrame, ErrorFrame, Hello, Ping, RefreshToken, Welcome

# A connection that ends for a reason with one of these actions is not tried again.
FATAL = frozenset({ClientAction.FIX_REQUEST, ClientAction.GIVE_UP, ClientAction.UPGRADE, ClientAction.STOP_WORK})
_REVOKED = "token_revoked"
_CHECK = "check that what gives the tokens belongs to the gateway's site"


class Connection:
    """The current connection. Commands go to `out`; `generation` distinguishes its reports from those of earlier ones.

    `end_reason` is why the gateway will close it, once the gateway has said so.
    """

    def __init__(
        self, topics: Subscriptions, limits: ClientLimits, out: list[Command], grants: Collection[str]
    ) -> None:
        self.state = State.IDLE
        self.generation = 0
        self.tokens = Tokens(limits, grants)
        self.deadlines = Deadlines(limits)
        self.reconnecting = Reconnecting()
        self._limits = limits
        self._topics = topics
        self._out = out
        self.end_reason = ""

    def may(self, step: Step) -> bool:
        """Whether `step` is possible now."""
        return allows(self.state, step)

    # --------------------------------------------------------------------------------------------- up

    def want(self, step: Step, at: Instant) -> None:
        """Take `step`, which makes a connection wanted."""
        self._go(step)
        self.dial(at)

    def dial(self, at: Instant) -> None:
        """Ask for a connection, or first for the token that it needs."""
        if not self.tokens.usable(at.now_ms):
            self.need_token()
            return
        self._go(Step.DIAL)
        self.generation += 1
        delay_ms = self.reconnecting.delay_ms(at.now_ms)
        self.deadlines.dialed(at.now_ms, delay_ms)
        self._out.append(Connect(self.generation, delay_ms))

    def greet(self, device_id: str, client_build_id: str, at: Instant) -> None:
        """Send Hello: the connection is open."""
        self._go(Step.CONNECTED)
        self.deadlines.greeted(at.now_ms)
        self.send(Hello(self.tokens.show() or "", device_id, client_build_id))

    def welcome(self, frame: Welcome, at: Instant) -> None:
        """Handle WELCOME: the gateway has accepted the connection, and it can carry topics."""
        self._go(Step.WELCOMED)
        self.deadlines.welcomed(at.now_ms, frame.heartbeat_interval_ms, frame.idle_timeout_ms)
        self.reconnecting.reschedule(0)
        # Both times are the gateway's, so their difference doesn't depend on our clock.
        self.tokens.welcomed(frame.token_expire_time_ms - frame.server_time_ms, at.now_ms)
        self.use_token()

    # --------------------------------------------------------------------------------------------- while it lasts

    def send(self, frame: ClientFrame) -> None:
        """Send `frame` on the connection."""
        self._out.append(Send(self.generation, frame))

    def need_token(self) -> None:
        """Ask for a token for all followed topics."""
        if (need := self.tokens.ask(self._topics.wanted)) is not None:
            self._out.append(need)

    def use_token(self) -> None:
        """Show the token, if this connection hasn't seen it."""
        if (text := self.tokens.show()) is not None:
            self.send(RefreshToken(text))

    def ask(self, names: Collection[str]) -> None:
        """Subscribe those of `names` that wait for it; if the token lacks some of them, ask for one that has them."""
        if self.state is not State.OPEN or not self.tokens.held:
            return
        if self._topics.lacking(names, self.tokens.topics):
            self.need_token()
        for request in self._topics.requests(names, self.tokens.topics):
            self.send(request)

    def keep_up(self, at: Instant) -> None:
        """Do what the passing of time requires on an open connection."""
        if (nonce := self.deadlines.ping(at.now_ms)) is not None:
            self.send(Ping(nonce))
        if at.now_ms >= self.tokens.refresh_at_ms:
            self.need_token()
        self.ask(self._topics.wake(at.now_ms))

    # --------------------------------------------------------------------------------------------- down

    def refused(self, frame: ErrorFrame, at: Instant) -> None:
        """Note why the gateway will close the connection. The consequences are decided when it closes."""
        self.end_reason = frame.reason
        self.reconnecting.hold(at.now_ms + frame.retry_after_ms)

    def give_up(self, at: Instant, reason: str = "", retry_after_ms: int = 0) -> None:
        """Drop the connection, which is useless, and connect again."""
        self._out.append(Disconnect(self.generation))
        self.ended(at, reason, retry_after_ms=retry_after_ms)

    def ended(self, at: Instant, reason: str, message: str = "", retry_after_ms: int = 0) -> None:
        """Handle the end of the connection: back off and connect again, unless that can't help."""
        self._forget()
        action = action_of(reason) if reason else ClientAction.RECONNECT
        # The session may be alive and only the token dead: ask for another one, once.
        if action in FATAL or (reason == _REVOKED and self.tokens.revoked_again()):
            self.fail(reason, message)
            return
        if action is ClientAction.REAUTHENTICATE and self.tokens.refused_again():
            self.fail(reason, f"{self._limits.max_refused_tokens} tokens in a row were refused; {_CHECK}: {message}")
            return
        self.reconnecting.failed(at, retry_after_ms)
        self.want(Step.LOST, at)

    def leave(self, step: Step) -> None:
        """Drop the connection, if there is one, and don't connect again until the session is resumed, if ever."""
        if self.may(Step.LOST):
            self._out.append(Disconnect(self.generation))
        self._forget()
        self._go(step)

    def fail(self, reason: str, message: str) -> None:
        """End the session: retrying can't help."""
        self.leave(Step.STOP)
        self._out.append(SessionFailed(reason, message))

    def _forget(self) -> None:
        self.generation += 1
        self.end_reason = ""
        self.deadlines.cut()
        self.tokens.cut()
        self._topics.cut()

    def _go(self, step: Step) -> None:
        self.state = after(self.state, step)
