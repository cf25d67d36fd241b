"""The collector rests while a service starts, and works when it runs."""

import subprocess
import sys

_SERVICE = """
import gc
from oa_platform.process.gc_pauses import YOUNG_OBJECTS, calm_garbage_collection, hold_garbage_collection
hold_garbage_collection()
held = gc.isenabled()
calm_garbage_collection()
print(held, gc.isenabled(), gc.get_threshold()[0] == YOUNG_OBJECTS, gc.get_freeze_count() > 0)
"""


def test_collection_is_held_at_the_start_and_calm_afterwards() -> None:
    done = subprocess.run([sys.executable, "-c", _SERVICE], capture_output=True, check=True)
    assert done.stdout.split() == [b"False", b"True", b"True", b"True"]
