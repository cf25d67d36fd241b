"""The commands; importing this registers them all."""

from apps.cli.commands import account, demo, receipts, replays, runs, stack, workers

__all__ = ["account", "demo", "receipts", "replays", "runs", "stack", "workers"]
