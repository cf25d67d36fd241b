"""The rules of addresses and of mail."""
