"""The comments of the contracts, which `make gen` writes beside the generated code: that has none."""

from __future__ import annotations

import json
from importlib.resources import files

_FILE = "descriptions.json"


def comments() -> dict[str, str]:
    """Return full name of a service, method, message, field or enum value -> its comment."""
    texts: dict[str, str] = json.loads(files("openagents.common.v1").joinpath(_FILE).read_text("utf-8"))
    return texts
