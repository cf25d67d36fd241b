"""What tests stand on: Postgres by the millisecond, a clock that obeys, a network that breaks on request."""
