"""How a service starts, runs and stops. `lifecycle` shows what a service's `__main__` looks like."""

from oa_platform.process.gc_pauses import collect_rarely

# Everything else that a process loads comes after its first import of this package.
collect_rarely()
