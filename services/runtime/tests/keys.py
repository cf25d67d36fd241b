"""A key that signs the tests' receipts."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

RECEIPT_KEY = Ed25519PrivateKey.generate()
