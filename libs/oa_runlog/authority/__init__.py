"""What the authority accepts.

- `commands`: everything that can change a run. `decide`: the events that a command stores, or why it is refused.
- `checks`: what a command must satisfy. `limits`: its bounds. `retries`: whether and when a failed run is tried again.
"""
