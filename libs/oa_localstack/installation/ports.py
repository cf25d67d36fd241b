"""The ports of a local stack: computed from one base, each one settable by itself, all checked before a start."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from oa_base.refusal import Refusal
from oa_platform.config.ports import PORT_OFFSETS, NoPortError, default_port, port_variable

HOST = "127.0.0.1"


@dataclass(frozen=True)
class PortUse:
    """One port of the stack, and who listens on it. `field` is its name in `oa_platform.config.ports`."""

    field: str

    @property
    def owner(self) -> str:
        """Who listens: a service, or Postgres."""
        who = self.field.partition("_")[0]
        return "khala_gateway" if who in ("khala", "gateway") else who

    @property
    def env(self) -> str:
        """The environment variable that sets this port alone."""
        return port_variable(self.field)

    @property
    def kind(self) -> str:
        """The protocol on this port: "http", "ws", "grpc", "ops" or "postgres"."""
        return self.field.rpartition("_")[2]


USES = tuple(map(PortUse, PORT_OFFSETS))


@dataclass(frozen=True)
class Ports:
    """The port numbers of one stack, all on 127.0.0.1. The last word of a name is the protocol on that port."""

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
        """Each port is `base` or `OA_PORT_BASE` plus its offset, unless its own variable says otherwise.

        Raises Refusal(invalid_setting) for a value that is not a port, and for a port that two uses would share.
        """
        settings = dict(env) if base is None else {**env, "OA_PORT_BASE": str(base)}
        try:
            numbers = {use.field: default_port(use.field, settings) for use in USES}
        except NoPortError as error:
            raise Refusal("invalid_setting", str(error), field=error.variable) from None
        taken: dict[int, PortUse] = {}
        for use in USES:
            other = taken.setdefault(numbers[use.field], use)
            if other is not use:
                message = f"{other.env} and {use.env} both come to {numbers[use.field]}; give each a port of its own"
                raise Refusal("invalid_setting", message, field=use.env)
        return cls(**numbers)

    def of(self, use: PortUse) -> int:
        """The port number of one use."""
        number: int = getattr(self, use.field)
        return number

    def ensure_free(self) -> None:
        """Raise Refusal(port_in_use) naming every port that something else holds, who wants it, and what to set."""
        obstacles = {use: error for use in USES if (error := obstacle(self.of(use))) is not None}
        if taken := list(obstacles):
            each = "\n".join(self._taken(use, error) for use, error in obstacles.items())
            message = f"{each}; stop what holds it, or move the whole stack with OA_PORT_BASE"
            metadata = {"port": str(self.of(taken[0])), "wanted_by": taken[0].owner}
            raise Refusal("port_in_use", message, field=taken[0].env, metadata=metadata)

    def _taken(self, use: PortUse, error: OSError) -> str:
        number = self.of(use)
        if error.errno != errno.EADDRINUSE:
            why = error.strerror
            return f"port {number} of {HOST} can't be used ({why}): {use.owner} wants it ({use.env} changes it)"
        holder = _holder(number)
        by = f" by {holder}" if holder else ""
        return f"port {number} is in use{by}: {use.owner} wants it ({use.env} changes it)"


def ops_use(service: str) -> PortUse:
    """The port where a service reports its health."""
    return next(use for use in USES if (use.owner, use.kind) == (service, "ops"))


def obstacle(port: int) -> OSError | None:
    """Why no server could listen on `port` now; None if one could."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections in TIME_WAIT are no obstacle, but a listener is.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error
    return None


def _holder(port: int) -> str:
    """Name and id of the process that listens on `port`, as far as we may see it."""
    import psutil  # loaded here, because most callers that read ports look for no process

    with contextlib.suppress(psutil.Error):
        for one in psutil.net_connections(kind="tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
                return f"{psutil.Process(one.pid).name()} (pid {one.pid})"
    return ""
