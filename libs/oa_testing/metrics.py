"""The value of a metric, read through its public interface."""

from __future__ import annotations

from prometheus_client import Counter, Gauge


def value_of(metric: Counter | Gauge) -> float:
    """The value of a counter or gauge. For one that has labels, pass `metric.labels(…)`."""
    (family,) = metric.collect()
    (value,) = (sample.value for sample in family.samples if not sample.name.endswith("_created"))
    return value
