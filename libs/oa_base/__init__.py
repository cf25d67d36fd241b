"""Ideas that every room may need, each built once: plain values and pure functions, nothing below them.

- `at_work`: the run that the current code works for.
- `backoff`: how long to wait before something is tried again.
- `catalogue`: every reason to refuse something, read from the descriptors of `openagents.common.v1`.
- `clock`: what a clock is, and the forms of a moment.
- `crowd`: how much each member of a kind has open.
- `environment`: settings of a program that works with one site.
- `ids`: the form of an id.
- `identity`: who somebody is, as tokens say it.
- `rate`: how much of something may go now.
- `refusal`: the one exception that leaves a use case.
- `ring`: a sequence of numbered items: the newest of them, and what is missing.
- `version`: which release this is.
- `visible`: text from elsewhere, as a terminal or a log may have it.
"""
