"""Metrics of the log: commands, batches, and how it is followed."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from oa_platform.telemetry.metrics import REGISTRY

COMMAND_SECONDS = Histogram(
    "oa_runtime_command_seconds",
    "Time from a command's arrival in the queue to its answer.",
    ["command"],
    registry=REGISTRY,
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
COMMANDS = Counter(
    "oa_runtime_commands",
    "Commands by outcome: stored, repeated, or the reason of the refusal.",
    ["command", "outcome"],
    registry=REGISTRY,
)
FANOUT_CONNECTED = Gauge(
    "oa_runtime_fanout_connected",
    "1 while the server of OA_FANOUT_NATS_URL is connected, or if none is set.",
    registry=REGISTRY,
)
FANOUT_CONNECTED.set(1)
QUEUE_COMMANDS = Gauge("oa_runtime_queue_commands", "Commands that wait for the sequencer.", registry=REGISTRY)
BATCH_COMMANDS = Histogram(
    "oa_runtime_batch_commands",
    "Commands in a transaction.",
    registry=REGISTRY,
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
BATCH_SECONDS = Histogram(
    "oa_runtime_batch_seconds",
    "Time of a transaction, including the wait for the locks of its partitions.",
    registry=REGISTRY,
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
BATCHES = Counter(
    "oa_runtime_batches",
    "Batches by how they were decided: read (from the database), cached, or overtaken (another replica wrote, so they "
    "were decided again).",
    ["how"],
    registry=REGISTRY,
)
BATCHES_FAILED = Counter(
    "oa_runtime_batches_failed",
    "Transactions that failed; their commands were refused as unavailable.",
    registry=REGISTRY,
)
EVENTS_STORED = Counter("oa_runtime_events_stored", "Events stored, by type.", ["type"], registry=REGISTRY)
TAIL_BEHIND = Gauge(
    "oa_runtime_tail_behind_entries",
    "Entries known to be stored and not yet followed, by partition.",
    ["partition"],
    registry=REGISTRY,
)
TAIL_REPAIRS = Counter(
    "oa_runtime_tail_repairs", "Reads of the log for what other replicas stored, and for holes.", registry=REGISTRY
)
TAIL_LAG_SECONDS = Histogram(
    "oa_runtime_tail_lag_seconds",
    "Time from the first notice of what another replica stored until this replica has read it.",
    registry=REGISTRY,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
