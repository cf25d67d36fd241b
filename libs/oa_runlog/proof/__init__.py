"""What a run was, provably: the hash chain, receipts, their log, and replay artifacts.

- `chain`: the hash chain. `receipt`: what a receipt states. `sequence`: the order of a record.
- `merkle`, `checkpoint`: the log of receipts. `replay`: runs as files.
- `verify`: whether a receipt and a record prove each other.
"""
