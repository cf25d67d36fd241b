"""The one exception that leaves a use case."""

from __future__ import annotations

from collections.abc import Mapping

from oa_base.catalogue import ReasonInfo, is_reason, reason_info


class Refusal(Exception):
    """Something was refused, for a reason of the catalogue.

    `message` is for people: what happened and what to do next. It never holds a token, a code, a password or a
    DSN, because it is sent, logged and shown. `field` is the path of the field that is to blame
    ("spec.exec.argv[2]"), empty when none is. `metadata` holds what a program may need ("current_seq").
    `retry_after_ms` is how long to wait before the same request can help; 0 says nothing about it.

    An unknown `reason` is a defect, not a refusal: it raises ValueError at once.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        field: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after_ms: int = 0,
    ) -> None:
        self.info: ReasonInfo = reason_info(reason)
        if retry_after_ms < 0:
            raise ValueError("retry_after_ms can't be negative")
        super().__init__(reason, message)
        self.message = message
        self.field = field
        self.metadata: dict[str, str] = dict(metadata or {})
        self.retry_after_ms = retry_after_ms

    @classmethod
    def received(
        cls,
        reason: str,
        message: str,
        *,
        field: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after_ms: int = 0,
    ) -> Refusal:
        """A refusal that came over a wire. A reason that only a newer peer knows becomes `internal`, which names it."""
        if not is_reason(reason):
            reason, message = "internal", f"{reason}: {message}"
        return cls(reason, message, field=field, metadata=metadata, retry_after_ms=retry_after_ms)

    @property
    def reason(self) -> str:
        """The reason's string, for example "stale_epoch"."""
        return self.info.reason

    @property
    def retry_hint_ms(self) -> int:
        """How long the caller should wait: `retry_after_ms`, or else the catalogue's value for the reason."""
        return self.retry_after_ms or self.info.retry_after_ms

    @property
    def retry_hint_s(self) -> int:
        """`retry_hint_ms` in whole seconds, rounded up, as Retry-After has it (RFC 9110, section 10.2.3)."""
        return -(-self.retry_hint_ms // 1000)

    def under(self, prefix: str) -> Refusal:
        """The same refusal with its field as seen from outside: "argv[2]" under "spec.exec" is "spec.exec.argv[2]"."""
        separator = "" if not self.field or self.field.startswith("[") else "."
        path = f"{prefix}{separator}{self.field}"
        return Refusal(
            self.reason, self.message, field=path, metadata=self.metadata, retry_after_ms=self.retry_after_ms
        )

    def __str__(self) -> str:
        """One line for logs and terminals: reason, field and message."""
        where = f" ({self.field})" if self.field else ""
        return f"{self.reason}{where}: {self.message}"

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions are pickled by their positional arguments; ours has keyword ones (pytest-xdist carries them).
        return (_rebuild, (self.reason, self.message, self.field, self.metadata, self.retry_after_ms))


def _rebuild(reason: str, message: str, field: str, metadata: dict[str, str], retry_after_ms: int) -> Refusal:
    return Refusal(reason, message, field=field, metadata=metadata, retry_after_ms=retry_after_ms)
