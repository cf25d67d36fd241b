"""The ports of a stack: `OA_PORT_BASE` plus an offset, each settable by itself with its own variable."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

DEFAULT_PORT_BASE = 8080
HIGHEST_PORT = 65535
PORT_OFFSETS = MappingProxyType(
    {
        "control_http": 0,
        "khala_ws": 10,
        "control_grpc": 1000,
        "runtime_grpc": 1001,
        "projector_grpc": 1002,
        "gateway_grpc": 1003,
        "control_ops": 1100,
        "runtime_ops": 1101,
        "projector_ops": 1102,
        "gateway_ops": 1103,
        "postgres": 1110,
    }
)


class NoPortError(ValueError):
    """A variable yields a value that is not a port."""

    def __init__(self, variable: str, text: str) -> None:
        super().__init__(f"{variable} comes to {text!r}, which is no port: give a number from 1 to {HIGHEST_PORT}")
        self.variable = variable


def port_variable(use: str) -> str:
    """The variable that sets one port: `port_variable("runtime_grpc")` is "OA_RUNTIME_GRPC_PORT"."""
    return f"OA_{use.upper()}_PORT"


def default_port(use: str, env: Mapping[str, str]) -> int:
    """The port for `use` in this environment; raises NoPortError."""
    variable = port_variable(use)
    if env.get(variable):
        return parse_port(variable, env[variable])
    base = parse_port("OA_PORT_BASE", env.get("OA_PORT_BASE") or str(DEFAULT_PORT_BASE))
    return parse_port("OA_PORT_BASE", str(base + PORT_OFFSETS[use]))


def parse_port(variable: str, text: str) -> int:
    """A port number; raises NoPortError."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= HIGHEST_PORT:
        raise NoPortError(variable, text)
    return int(text)
