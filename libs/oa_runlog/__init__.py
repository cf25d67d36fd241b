"""What a run is: its events, its state machine, what the authority accepts, the hash chain, and receipts. Pure.

- `events`, `state`: the values. `transitions`: the tables. `reducer`: events -> state.
- `upcast`: reads older events as today's. `state_form`: a state as canonical JSON, and its hash.
- `commands`, `decide`: what the authority does with a command. `titles`: the title of a run without one.
- `proof`: the hash chain, receipts and their log, replay artifacts. `canonical`: RFC 8785. `fingerprint`: idempotency.
- `partitions`: the part of the log that a run belongs to.
- `wire`: values <-> bytes, the only package here that knows the generated types.
"""
