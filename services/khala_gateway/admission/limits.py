"""Named limits of admission."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """How many clients may be connected, and how fast they may connect: in total, per network, session or principal.

    Admitting a client, with its token, takes between 1.4 and 3.5 ms of a core. So 500 per second leave some of the core
    for connected clients, and the last of 1,000 that connect at once is answered within 3.5 s, before the 5 s for its
    Hello are over. If 3,000 come back together, all are admitted after 4 s.
    """

    max_connections: int = 10_000
    # Maximum burst of handshakes, and sustained handshakes per second.
    handshake_burst: int = 1_000
    handshakes_per_s: int = 500
    # For one network: a fifth of the burst, and a tenth of the other limits, so that nobody can use up all of them
    # alone. An office behind one address comes back at once.
    handshake_burst_per_address: int = 200
    handshakes_per_s_per_address: int = 50
    connections_per_address: int = 1_000
    # Maximum number of TCP connections of one address that have sent no request yet. They don't count as connections,
    # and take no room from those that do.
    waiting_per_address: int = 200
    # Maximum number of networks whose handshakes are remembered; the one that was quiet longest is forgotten first.
    addresses: int = 10_000
    # The tabs of a browser; all devices and scripts of a person or service account.
    connections_per_session: int = 32
    connections_per_principal: int = 256
