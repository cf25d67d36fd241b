"""What a run is: its events, its state machine, what the authority accepts, the hash chain, and receipts. Pure.

- `events`, `state`: the values. `transitions`: the tables. `reducer`: events -> state.
- `upcast`: older events are read as today's. `state_form`: a state as canonical JSON, and its hash.
- `commands`, `decide`: what the authority does with a command. `titles`: what a run without a title is called.
- `proof`: the hash chain, receipts and their log, replay artifacts. `canonical`: RFC 8785. `fingerprint`: idempotency.
- `partitions`: which share of the log a run belongs to.
- `wire`: values <-> bytes, the only room here that knows the generated types.
"""
