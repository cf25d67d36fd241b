"""What the edge answers."""

from __future__ import annotations

import base64
import json

from oa_base.refusal import Refusal
from oa_wire.status import to_status


def connect_error(refusal: Refusal) -> bytes:
    details = [
        {"type": any_.type_url.rpartition("/")[2], "value": base64.b64encode(any_.value).decode()}
        for any_ in to_status(refusal).details
    ]
    return json.dumps({"code": "unknown", "message": refusal.message, "details": details}).encode()
