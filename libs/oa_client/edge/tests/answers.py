"""What the edge answers."""

from __future__ import annotations

import base64
import json
from email.utils import formatdate

from google.protobuf.message import Message

from oa_base.refusal import Refusal
from oa_client.transport import HttpAnswer
from oa_wire.connect import PROTO
from oa_wire.status import to_status


def answered(message: Message, now_s: float | None = None) -> HttpAnswer:
    """A message in protobuf, and the time at the edge if `now_s` says it."""
    date = {} if now_s is None else {"date": formatdate(now_s, usegmt=True)}
    return HttpAnswer(200, message.SerializeToString(), {"content-type": PROTO, **date})


def connect_error(refusal: Refusal) -> bytes:
    details = [
        {"type": any_.type_url.rpartition("/")[2], "value": base64.b64encode(any_.value).decode()}
        for any_ in to_status(refusal).details
    ]
    return json.dumps({"code": "unknown", "message": refusal.message, "details": details}).encode()
