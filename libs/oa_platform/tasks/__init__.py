"""How tasks wait for one another.

- `events`: waits for an event up to a limit, and tells whether anything was waited for.
- `ending`: cancels tasks, and waits for their end.
- `word`: tells a task that there may be something to do. `together`: questions that share a round trip.
"""
