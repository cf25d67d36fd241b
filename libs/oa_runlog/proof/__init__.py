"""What a run was, provably: the hash chain, receipts, their log, and replay artifacts.

- `chain`: the hash chain. `sequence`: the order of a record. `receipt`: what a receipt states.
- `verify`: whether a receipt and a record or an artifact prove each other. `outcome`: the part of it that needs no key.
- `replay`: runs as files.
- `merkle`: the tree over all receipts. `checkpoint`: the statement of its size and root. `notes`: its signed form.
- `ed25519`: whether a signature fits. `signing`: making signatures.

Only `ed25519` and `signing` import `cryptography`. `chain`, `sequence`, `receipt`, `outcome`, `replay` and `merkle`
need neither, so that whoever only reads a run does not load it.
"""
