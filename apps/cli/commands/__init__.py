"""The commands; importing this registers them all."""

from apps.cli.commands import (
    account,
    admin,
    api_keys,
    codex,
    completion,
    demo,
    receipts,
    replays,
    requests,
    runs,
    schedules,
    sessions,
    stack,
    workers,
)

__all__ = [
    "account",
    "admin",
    "api_keys",
    "codex",
    "completion",
    "demo",
    "receipts",
    "replays",
    "requests",
    "runs",
    "schedules",
    "sessions",
    "stack",
    "workers",
]
