"""Sessions of the TypeScript client in place of the Python client's: its own code, with its own reading of frames."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from oa_khala.client.commands import Command, NeedToken, Send
from oa_khala.client.session import ClientSession
from oa_khala.client.states import State
from oa_khala.client.tests.transcripts import CALLS, decoded, encoded
from oa_khala.frames import Form
from oa_khala.wire import decode_client_frame, encode_server_frame
from tests.simulation.client import BUILD_ID, DEVICE_ID, Sessions
from tests.typescript.package import PACKAGE


class ForeignSession(ClientSession):
    """A session that another program holds: the calls of a `ClientSession`, and nothing of what one is made of."""

    def __init__(self, name: str, ask: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._name = name
        self._ask = ask
        self.told("begin", [DEVICE_ID, BUILD_ID])

    @property
    def state(self) -> State:
        """See ClientSession."""
        return State(self._stands["state"])

    @property
    def generation(self) -> int:
        """See ClientSession."""
        generation: int = self._stands["generation"]
        return generation

    @property
    def wake_at_ms(self) -> int | None:
        """See ClientSession."""
        wake_at_ms: int | None = self._stands["wake_at_ms"]
        return wake_at_ms

    def told(self, call: str, args: list[Any]) -> list[Command]:
        """What the session gives, told `call`."""
        self._stands = self._ask({"session": self._name, "call": call, "args": args})
        return [_command(each) for each in self._stands["commands"]]


def _command(given: dict[str, Any]) -> Command:
    match given:
        case {"kind": "send"}:
            return Send(given["generation"], decode_client_frame(bytes.fromhex(given["frame"]), Form.PROTO))
        case {"kind": "need_token"}:
            return NeedToken(frozenset(given["topics"]))
    command: Command = decoded(given)
    return command


def _telling(call: str) -> Callable[..., list[Command]]:
    def tell(self: ForeignSession, *args: Any) -> list[Command]:
        if call == "frame":
            generation, frame, at = args
            return self.told(call, [generation, encode_server_frame(frame, Form.PROTO).hex(), encoded(at)])
        return self.told(call, encoded(args))

    return tell


for _call in CALLS:
    setattr(ForeignSession, _call, _telling(_call))


@contextmanager
def typescript_sessions() -> Iterator[Sessions]:
    """What makes sessions of the TypeScript client, which is compiled already; its program ends with the block."""
    command = ["node", "build/test/sessions.js"]
    with subprocess.Popen(command, cwd=PACKAGE, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        asked, answers = program.stdin, program.stdout
        assert asked is not None
        assert answers is not None

        def ask(call: dict[str, Any]) -> dict[str, Any]:
            asked.write(json.dumps(call).encode() + b"\n")
            asked.flush()
            line = answers.readline()
            assert line, f"the program of the TypeScript client ended at {call}"
            answer: dict[str, Any] = json.loads(line)
            return answer

        yield lambda name: ForeignSession(name, ask)
