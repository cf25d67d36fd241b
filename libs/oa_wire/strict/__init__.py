"""Readers that take exactly one form of each value, and refuse every other.

- `json`, `scalars`: proto3 JSON; `fields`: protobuf. A field that the contract doesn't have is refused, by its name.
- `text`: JSON and base64 outside of messages.
"""
