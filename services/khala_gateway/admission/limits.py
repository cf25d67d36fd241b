"""Named limits of admission."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """How many may be here, and how fast they may come: all together, and from one network, session or principal.

    Letting one in, with its token, takes between 1.4 and 3.5 ms of a core. So 500 a second leave some of the core for
    those who are here already, and the last of 1,000 that come at once is answered within 3.5 s: before the 5 s that it
    has for its Hello are over. 3,000 that come back together are all in after 4 s.
    """

    max_connections: int = 10_000
    # Handshakes: so many at once, and so many a second in the long run.
    handshake_burst: int = 1_000
    handshakes_per_s: int = 500
    # Of one network: a fifth of a burst, and a tenth of the rest, so that nobody alone fills the door. An office behind
    # one address comes back at once.
    handshake_burst_per_address: int = 200
    handshakes_per_s_per_address: int = 50
    connections_per_address: int = 1_000
    # TCP connections of one address that have not asked for anything yet: they are no connections, and take no room
    # from those that are.
    waiting_per_address: int = 200
    # Networks whose handshakes are remembered; the one that has been quiet for the longest time is forgotten first.
    addresses: int = 10_000
    # A browser's tabs; all devices and scripts of a person or service account.
    connections_per_session: int = 32
    connections_per_principal: int = 256
