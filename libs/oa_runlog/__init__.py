"""What a run is: its events, its state, what the authority accepts, the hash chain, and receipts. Pure.

- `events`: the elements of a run's log. `state`: what they make of a run.
- `authority`: commands, and what the authority decides about them.
- `proof`: the hash chain, receipts and their log, replay artifacts.
- `wire`: values <-> bytes, the only package here that knows the generated types.
- `workers`: the state machine of a worker. `stdin`: inputs of a run as bytes for its command.
- `canonical`: RFC 8785. `fingerprint`: idempotency. `partitions`: the part of the log that a run belongs to.
"""
