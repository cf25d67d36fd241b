"""Fewer and shorter pauses by Python's cyclic garbage collector.

A service keeps rings of tens of thousands of small values, none of them in a cycle. Under load a full collection, which
looks at each of them, took tens of milliseconds and came several times a second. So what is there when a service is
ready is taken out of the collector's sight for good, and full collections become rare. Cycles are still found.
"""

from __future__ import annotations

import gc

YOUNG_OBJECTS = 20_000
"""How many new objects a collection of the youngest waits for; Python's own 700 is for scripts."""
YOUNG_COLLECTIONS = 50
"""How many of those before the middle generation is looked at."""
MIDDLE_COLLECTIONS = 100
"""How many of those before everything is."""


def collect_rarely() -> None:
    """Call before the modules of the process are loaded. What they make stays, so there is no garbage to look for."""
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_COLLECTIONS, MIDDLE_COLLECTIONS)


def calm_garbage_collection() -> None:
    """Call once, when everything that lives as long as the process has been made."""
    gc.collect()
    gc.freeze()
    collect_rarely()
