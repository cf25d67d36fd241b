"""Plain values <-> bytes of openagents.runtime.v1. The only package of this library that knows the generated types.

Reading is total: it returns a value, or raises Refusal with `missing_field`, `invalid_value`, `invalid_enum`,
`missing_payload`, `malformed_message` or `unsupported_schema_version`, and the field's path. Writing is deterministic:
the same value gives the same bytes in every process.

- `events`: whole events. `bodies`: their bodies. `specs`, `queues`, `finishes`, `codex`, `requests`, `json_values`:
  parts of bodies.
- `runs`: a run as the authority shows it. `receipts`: signed receipts.
- `fields`: the functions with which all of them read messages. `upcast`: reads older events as today's.

Callers import from here. The modules are for each other.
"""

from oa_runlog.wire.bodies import (
    BodyMessage,
    body_from_wire,
    body_to_wire,
    checked_body,
    decode_body,
    encode_body,
    progress_from_wire,
    progress_to_wire,
    received_body,
)
from oa_runlog.wire.events import (
    EventEncoder,
    StoredEvent,
    decode_event,
    encode_event,
    event_from_wire,
    recorded_ns,
    seen_event,
    stored_event,
)
from oa_runlog.wire.fields import asked_json_text, json_text
from oa_runlog.wire.finishes import decode_finish, encode_finish, finish_from_wire, finish_to_wire
from oa_runlog.wire.queues import decode_queue, encode_queue
from oa_runlog.wire.receipts import (
    receipt_from_wire,
    receipt_key_from_wire,
    receipt_key_to_wire,
    receipt_to_wire,
)
from oa_runlog.wire.requests import opened_to_wire
from oa_runlog.wire.runs import run_to_wire, status_from_wire
from oa_runlog.wire.specs import asked_spec_from_wire, decode_spec, encode_spec, spec_from_wire, spec_to_wire

__all__ = [
    "BodyMessage",
    "EventEncoder",
    "StoredEvent",
    "asked_json_text",
    "asked_spec_from_wire",
    "body_from_wire",
    "body_to_wire",
    "checked_body",
    "decode_body",
    "decode_event",
    "decode_finish",
    "decode_queue",
    "decode_spec",
    "encode_body",
    "encode_event",
    "encode_finish",
    "encode_queue",
    "encode_spec",
    "event_from_wire",
    "finish_from_wire",
    "finish_to_wire",
    "json_text",
    "opened_to_wire",
    "progress_from_wire",
    "progress_to_wire",
    "receipt_from_wire",
    "receipt_key_from_wire",
    "receipt_key_to_wire",
    "receipt_to_wire",
    "received_body",
    "recorded_ns",
    "run_to_wire",
    "seen_event",
    "spec_from_wire",
    "spec_to_wire",
    "status_from_wire",
    "stored_event",
]
