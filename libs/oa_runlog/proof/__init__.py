"""Proof of what happened in a run: the hash chain, receipts, their log, and replay artifacts.

- `chain`: the hash chain. `sequence`: the order of a record. `receipt`: what a receipt states.
- `verify`: checks a receipt against a record or an artifact. `outcome`: the part of `verify` that needs no key.
- `replay`: runs as files.
- `merkle`: the tree over all receipts. `checkpoint`: the statement of its size and root. `notes`: its signed form.
- `audit`: the hash chain over an org's audit log.
- `ed25519`: whether a signature fits. `signing`: making signatures.

Only `ed25519` and `signing` import `cryptography`. `chain`, `sequence`, `receipt`, `outcome`, `replay` and `merkle`
need neither of the two, so that programs that only read runs don't load `cryptography`.
"""
