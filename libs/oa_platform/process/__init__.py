"""How a service starts, runs and stops. `lifecycle` shows what a service's `__main__` looks like.

- `first`, `gc_pauses`: what a program does before its imports. `start_oa`, `interrupts`: the beginning of `oa`.
- `signals`: the signals that stop a program. `descriptors`: a process that has no descriptors left.
- `revocations`, `places`: follow what control revokes, and remember who has lost a place.
"""
