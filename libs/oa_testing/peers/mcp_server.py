"""An MCP server over standard input and output, as Codex starts one: its tool `ask` asks people.

`ask` is called with `{"elicit": PARAMS}`: it sends PARAMS as `elicitation/create`, and its result is the answer, as
JSON. The server runs alone: `python mcp_server.py`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

TOOL = {"name": "ask", "description": "Asks a person.", "inputSchema": {"type": "object"}}


def read() -> dict[str, Any]:
    """Return the next message; exit at the end of the input."""
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    message: dict[str, Any] = json.loads(line)
    return message


def say(**message: Any) -> None:
    """Write one message."""
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def answer(call: dict[str, Any]) -> dict[str, Any]:
    """The result of one call."""
    match call["method"]:
        case "initialize":
            told = {"protocolVersion": call["params"]["protocolVersion"], "capabilities": {"tools": {}}}
            return {**told, "serverInfo": {"name": "ask", "version": "1"}}
        case "tools/list":
            return {"tools": [TOOL]}
        case "tools/call":
            say(id="asked", method="elicitation/create", params=call["params"]["arguments"]["elicit"])
            while (came := read()).get("id") != "asked":
                pass
            return {"content": [{"type": "text", "text": json.dumps(came.get("result", came.get("error")))}]}
    return {}


if __name__ == "__main__":
    while True:
        said = read()
        if "id" in said:
            say(id=said["id"], result=answer(said))
