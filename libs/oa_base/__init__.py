"""Ideas that every room may need, each built once: plain values and pure functions, nothing below them.

- `backoff`: how long to wait before something is tried again.
- `clock`: what a clock is, and the forms of a moment.
- `ids`: the form of an id.
- `identity`: who somebody is, as tokens say it.
- `rate`: how much of something may go now.
"""
