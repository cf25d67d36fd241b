"""Word from one process to all others of its kind: short texts, which may get lost, repeat, or come late.

channel  what every way of telling has in common
nats     over a NATS server

Nothing may depend on a text that arrives. Whoever is told by one looks at what is true now and then anyway.
"""
