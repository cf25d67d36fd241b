"""Mail on its way out: queued in the transaction of what it tells of, handed to the relay by any replica."""
