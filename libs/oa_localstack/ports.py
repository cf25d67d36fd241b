"""The ports of a local stack: one formula from one base, each single one settable, all checked before a start."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

import psutil

from oa_errors import Refusal

DEFAULT_BASE = 8080
HOST = "127.0.0.1"
_HIGHEST_PORT = 65535


@dataclass(frozen=True)
class PortUse:
    """One port of the stack: who listens on it, for what, and how to move it."""

    field: str
    offset: int
    owner: str
    purpose: str

    @property
    def env(self) -> str:
        """The environment variable that sets this port alone."""
        return f"OA_{self.field.upper()}_PORT"


USES = (
    PortUse("control_http", 0, "control", "the public HTTP edge"),
    PortUse("khala_ws", 10, "khala_gateway", "Khala's WebSocket"),
    PortUse("control_grpc", 1000, "control", "gRPC"),
    PortUse("runtime_grpc", 1001, "runtime", "gRPC"),
    PortUse("projector_grpc", 1002, "projector", "gRPC"),
    PortUse("gateway_grpc", 1003, "khala_gateway", "gRPC health and reflection"),
    PortUse("control_ops", 1100, "control", "health and metrics"),
    PortUse("runtime_ops", 1101, "runtime", "health and metrics"),
    PortUse("projector_ops", 1102, "projector", "health and metrics"),
    PortUse("gateway_ops", 1103, "khala_gateway", "health and metrics"),
    PortUse("postgres", 1110, "postgres", "the database"),
)


@dataclass(frozen=True)
class Ports:
    """The port numbers of one stack, all on 127.0.0.1."""

    control_http: int
    khala_ws: int
    control_grpc: int
    runtime_grpc: int
    projector_grpc: int
    gateway_grpc: int
    control_ops: int
    runtime_ops: int
    projector_ops: int
    gateway_ops: int
    postgres: int

    @classmethod
    def from_env(cls, env: Mapping[str, str], base: int | None = None) -> Self:
        """`base` or `OA_PORT_BASE` plus each offset, unless the port's own variable says otherwise.

        Raises Refusal(invalid_setting) for what is no port, and for a port that two of them would share.
        """
        start = base if base is not None else _port(env, "OA_PORT_BASE", DEFAULT_BASE)
        numbers = {use.field: _port(env, use.env, start + use.offset) for use in USES}
        taken: dict[int, PortUse] = {}
        for use in USES:
            other = taken.setdefault(numbers[use.field], use)
            if other is not use:
                message = f"{other.env} and {use.env} both come to {numbers[use.field]}; each needs a port of its own."
                raise Refusal("invalid_setting", message, field=use.env)
        return cls(**numbers)

    def of(self, use: PortUse) -> int:
        """The number behind one use."""
        number: int = getattr(self, use.field)
        return number

    def ensure_free(self) -> None:
        """Raise Refusal(port_in_use) naming every port that something else holds, who wants it, and what to set."""
        taken = [use for use in USES if not is_free(self.of(use))]
        if not taken:
            return
        lines = [self._taken(use) for use in taken]
        message = "\n".join([*lines, "Stop what holds it, or move the whole stack with OA_PORT_BASE."])
        first = taken[0]
        metadata = {"port": str(self.of(first)), "wanted_by": first.owner}
        raise Refusal("port_in_use", message, field=first.env, metadata=metadata)

    def _taken(self, use: PortUse) -> str:
        number = self.of(use)
        holder = _holder(number)
        by = f" by {holder}" if holder else ""
        return f"Port {number} is in use{by}; {use.owner} wants it for {use.purpose} ({use.env} changes it)."


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections in TIME_WAIT are no obstacle, a listener is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _HIGHEST_PORT:
        message = f"{name} is {text!r}, which is no port: give a number from 1 to {_HIGHEST_PORT}."
        raise Refusal("invalid_setting", message, field=name)
    return int(text)


def _holder(port: int) -> str:
    """Name and id of the process that listens on `port`, as far as we may see it."""
    try:
        for connection in psutil.net_connections(kind="tcp4"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})" if connection.pid else ""
    except psutil.Error:
        pass
    return ""


assert tuple(use.field for use in USES) == tuple(field.name for field in fields(Ports))
