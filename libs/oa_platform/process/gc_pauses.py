"""Fewer and shorter pauses by Python's cyclic garbage collector.

A service keeps rings of tens of thousands of small values, none of them in a cycle. Under load a full collection, which
looks at each of them, took tens of milliseconds and came several times a second. So all objects that exist when a
service is ready are hidden from the collector for good, and full collections become rare. Cycles are still found.

While a service starts, it makes little garbage and hundreds of thousands of objects that stay. Collections that look at
them take a tenth of the time that the start takes, so there are none:

    hold_garbage_collection()  # before the other imports: `first.before_imports` does it
    ...
    calm_garbage_collection()  # the service is ready
"""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 20_000
"""Number of new objects that start a collection of the youngest generation; Python's own 700 is for scripts."""
YOUNG_COLLECTIONS = 50
"""Number of those collections after which the middle generation is collected too."""
MIDDLE_COLLECTIONS = 100
"""Number of collections of the middle generation after which everything is collected."""


def hold_garbage_collection() -> None:
    """Call as the first thing in a service's process: nothing is collected until `calm_garbage_collection`."""
    gc.disable()


def calm_garbage_collection() -> None:
    """Call once, when everything that lives as long as the process has been made."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_COLLECTIONS, MIDDLE_COLLECTIONS)
    gc.enable()
