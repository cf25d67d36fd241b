"""Outgoing mail: queued in the transaction that it is about, and handed to the relay by any replica."""
