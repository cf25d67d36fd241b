"""One live connection per token: a second one with the same jti ends the first."""

from typing import Protocol


class Holder(Protocol):
    """A connection that holds a token."""

    def token_replayed(self) -> None:
        """Another connection came with the same token."""
        ...


class LiveTokens:
    """jti -> the connection that holds it; bounded by the number of connections."""

    def __init__(self) -> None:
        self._holders: dict[str, Holder] = {}

    def claim(self, jti: str, holder: Holder) -> None:
        """`holder` is the one connection of `jti` from now on."""
        previous = self._holders.get(jti)
        self._holders[jti] = holder
        if previous is not None and previous is not holder:
            previous.token_replayed()

    def release(self, jti: str, holder: Holder) -> None:
        """`holder` no longer uses `jti`."""
        if self._holders.get(jti) is holder:
            del self._holders[jti]
