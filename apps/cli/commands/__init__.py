"""The commands; importing this registers them all."""

from apps.cli.commands import account, demo, receipts, runs, stack, workers

__all__ = ["account", "demo", "receipts", "runs", "stack", "workers"]
