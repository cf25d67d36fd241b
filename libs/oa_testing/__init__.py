"""Support for tests: databases in milliseconds, a clock that tests control, a network that breaks on request.

Rooms: `suite`, for a run of pytest; `peers`, servers and programs that the project talks to, real or stand-ins.
"""
