"""What a metric says, by the public way."""

from __future__ import annotations

from prometheus_client import Counter, Gauge


def value_of(metric: Counter | Gauge) -> float:
    """The value of a counter or gauge; of one that has labels, `metric.labels(…)` says which."""
    (family,) = metric.collect()
    (value,) = (sample.value for sample in family.samples if not sample.name.endswith("_created"))
    return value
