"""What becomes of connections when several processes listen on one port (`SO_REUSEPORT`)?

    python -m benchmarks.one_port [--connections 1000] [--rounds 5] [--json FILE]

Two sockets listen on one port, as those of two processes would; the kernel does not care whose they are.

- **spread**: how many of the connections each of them gets.
- **one closes**: how many are reset of those that wait to be accepted when one of the two is closed, as a process does
  that is told to stop. The peer is a socket that is alone on its port and stays.
"""

from __future__ import annotations

import argparse
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.measure import Figures, report
from benchmarks.sockets import allow_sockets
from oa_localstack.installation.ports import HOST


@contextmanager
def listening(count: int) -> Iterator[Sequence[socket.socket]]:
    """`count` sockets that listen on one port, for a block."""
    with ExitStack() as stack:
        port, found = 0, []
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            one.bind((HOST, port))
            one.listen(4096)
            port = one.getsockname()[1]
            found.append(one)
        yield found


@contextmanager
def connected(to: socket.socket, count: int) -> Iterator[Sequence[socket.socket]]:
    """`count` connections to the socket's port, none of them accepted yet, for a block."""
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(to.getsockname())) for _ in range(count)]


def accepted(one: socket.socket) -> int:
    """Accept and close the connections that wait at a socket. Returns their number."""
    one.setblocking(False)
    count = 0
    while True:
        try:
            one.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def is_reset(client: socket.socket) -> bool:
    """Whether the other side has reset the connection."""
    client.setblocking(False)
    try:
        client.recv(1)
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    return False


def spread(connections: int) -> Figures:
    """Measure the share of connections that each of two sockets gets."""
    began = time.perf_counter()
    with listening(2) as (one, other), connected(one, connections):
        counts = accepted(one), accepted(other)
    note = f"{counts[0]} and {counts[1]}"
    return Figures("two on one port", "spread", connections, time.perf_counter() - began, note=note)


def closed(listeners: int, connections: int) -> Figures:
    """Measure what is lost when the last of `listeners` closes. A single one is not closed."""
    began = time.perf_counter()
    with listening(listeners) as (*others, last), connected(last, connections) as clients:
        if others:
            last.close()
        lost = sum(map(is_reset, clients))
    subject = "two on one port" if others else "one that stays"
    note = f"{lost} of {connections} reset"
    return Figures(
        subject, "one closes" if others else "nothing closes", connections, time.perf_counter() - began, note=note
    )


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    allow_sockets(2 * arguments.connections)
    rows = []
    for _ in range(arguments.rounds):
        rows += [spread(arguments.connections), closed(2, arguments.connections), closed(1, arguments.connections)]
    report("Several listeners on one port", sorted(rows, key=lambda row: (row.setting, row.subject)), arguments.json)


if __name__ == "__main__":
    main()
