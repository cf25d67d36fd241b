"""What tests stand on: Postgres by the millisecond, a clock that obeys, a network that breaks on request.

In rooms: `suite`, how a run of pytest goes; `peers`, what the project talks to, real or a stand-in.
"""
