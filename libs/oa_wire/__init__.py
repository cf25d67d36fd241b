"""What every reader of messages needs, once: what a message must fulfil, and how a refusal looks on each wire.

- `rules`: holds a message against the `FieldRules` of its own descriptors.
- `strict_json`, `strict_text`: proto3 JSON, JSON and base64 with one meaning each.
- `status`, `connect`: a refusal as `google.rpc.Status`, and as Connect's error JSON; both are read back.

Pure: no I/O.
"""
