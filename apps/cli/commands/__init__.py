"""The commands; importing this registers them all."""

from apps.cli.commands import account, admin, demo, receipts, replays, runs, stack, workers

__all__ = ["account", "admin", "demo", "receipts", "replays", "runs", "stack", "workers"]
