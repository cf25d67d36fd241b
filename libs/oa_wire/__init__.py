"""Shared code for every reader of messages: the rules a message must satisfy, and the form of a refusal on each wire.

- `rules`: checks a message against the `FieldRules` of its own descriptors.
- `strict`: messages, proto3 JSON, JSON and base64 with one meaning each.
- `given`: checks arguments that programs pass. `shapes`: types of inputs and results.
- `json_schema`: the part of JSON Schema that a door checks values against.
- `page_tokens`, `batches`, `http_dates`: tokens of pages, batches of messages, dates in headers.
- `status`, `connect`: a refusal as `google.rpc.Status` and as Connect's error JSON; both can be read back.

Pure: no I/O.
"""
