"""The sync token of a client session: which one it has, for how long, and when it asks for another."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from oa_base.backoff import RECONNECT
from oa_khala.client.commands import ClientLimits, Instant, NeedToken, SyncToken
from oa_khala.client.deadlines import NEVER
from oa_khala.grants import Grants, grants_of


class Tokens:
    """`retry_at_ms` is when to ask again after no token was available, `refresh_at_ms` when the current one ages."""

    def __init__(self, limits: ClientLimits, grants: Collection[str] = ()) -> None:
        """`grants`: topics of owners to ask for instead of each topic by name, as in `oa_khala.grants`."""
        self.retry_at_ms = NEVER
        self.refresh_at_ms = NEVER
        self._limits = limits
        self._token: SyncToken | None = None
        self._ends_ms = 0
        self._shown: str | None = None
        self._asked = False
        self._wanted: frozenset[str] = frozenset()
        self._granted = Grants()
        self._grants = frozenset(grants)
        self._attempts = 0
        self._revoked = False
        self._refused_in_a_row = 0

    @property
    def held(self) -> bool:
        """Whether there is a token."""
        return self._token is not None

    @property
    def topics(self) -> Grants:
        """Grants of the token."""
        return self._granted if self._token else Grants()

    def usable(self, now_ms: int) -> bool:
        """Whether the token is worth a connection."""
        return self._token is not None and self._ends_ms > now_ms + self._limits.token_margin_ms

    def ask(self, wanted: frozenset[str]) -> NeedToken | None:
        """Ask for a token for `wanted`, one request at a time; without topics, there is nothing to ask for."""
        self.retry_at_ms = self.refresh_at_ms = NEVER
        if not wanted or self._asked:
            return None
        self._asked = True
        self._wanted = self._named(wanted)
        return NeedToken(self._wanted)

    def has_room(self, wanted: frozenset[str]) -> bool:
        """Whether one token can have `wanted`: control refuses a request for more as a whole."""
        return len(self._named(wanted)) <= self._limits.max_topics

    def passed_over(self, token: SyncToken, carried: Collection[str]) -> bool:
        """Pass over an answer that would end a topic of those that the connection carries, because the token was not
        asked for it: it was left at that time, or a grant that opened it is now denied. Ask for another one then."""
        opened = _opened(token)
        if all(topic in opened or topic in self._wanted for topic in carried):
            return False
        self._asked = False
        self._grants &= token.topics
        return True

    def granted(self, token: SyncToken, now_ms: int) -> frozenset[str]:
        """Take `token` as the answer. Returns what was asked for and not granted. Grants of owners that were denied are
        no longer asked for: their topics are asked for by name from then on."""
        self._asked, self._attempts, self.retry_at_ms = False, 0, NEVER
        self._token = token
        self._granted = _opened(token)
        self._grants &= token.topics
        # `expires_in_ms` may be anything if it was computed with a wrong clock; WELCOME then says what is true.
        self._lives(max(token.expires_in_ms, self._limits.min_token_life_ms), now_ms)
        return self._wanted - token.topics

    def drop_grants(self) -> bool:
        """Note that nothing that was asked for is granted. True if grants of owners were among it: from now on, their
        topics are asked for by name."""
        asked = bool(self._grants & self._wanted)
        self._grants = frozenset()
        return asked

    def refused(self, at: Instant, retry_after_ms: int) -> None:
        """Note the answer that no token is available now: ask again later, and not before `retry_after_ms`."""
        self._asked = False
        self.retry_at_ms = at.now_ms + max(RECONNECT.wait_ms(self._attempts, at.jitter), retry_after_ms)
        self._attempts += 1

    def show(self) -> str | None:
        """Return the token's text, to be sent; None when this connection has seen it."""
        if self._token is None or self._token.text == self._shown:
            return None
        self._shown = self._token.text
        return self._shown

    def welcomed(self, left_ms: int, now_ms: int) -> None:
        """Take from the gateway how much longer the token that it was shown lives."""
        self._revoked = False
        self._refused_in_a_row = 0
        if self._token is not None and self._token.text == self._shown:
            self._lives(left_ms, now_ms)

    def revoked_again(self) -> bool:
        """Note that the token was revoked. True if the one before was revoked, too: another one won't help."""
        again, self._revoked = self._revoked, True
        return again

    def refused_again(self) -> bool:
        """Drop the token, which the gateway does not take. True if so many in a row were refused, none of them having
        been taken, that another one won't help."""
        self._token = None
        self._refused_in_a_row += 1
        return self._refused_in_a_row >= self._limits.max_refused_tokens

    def cut(self) -> None:
        """Note that the connection is gone: the next one has seen no token."""
        self._shown = None

    def _named(self, wanted: frozenset[str]) -> frozenset[str]:
        opened = grants_of(self._grants)
        return self._grants | {topic for topic in wanted if topic not in opened}

    def _lives(self, left_ms: int, now_ms: int) -> None:
        self._ends_ms = now_ms + left_ms
        self.refresh_at_ms = now_ms + int(left_ms * self._limits.refresh_at_fraction)


def _opened(token: SyncToken) -> Grants:
    # A name that control grants may be that of all topics of an owner. It is no topic, as the gateway will say.
    return replace(grants_of(token.topics), topics=token.topics)
