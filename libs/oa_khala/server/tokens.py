"""Which tokens open a connection, and which keep it open."""

from oa_khala.server.admission import GRANTS_NOTHING, Grant, check_device, check_same_session, check_time_left


class Tokens:
    """The tokens of one connection, one after the other. `grant` is what the current one grants."""

    def __init__(self) -> None:
        self.grant = GRANTS_NOTHING
        # From Hello.
        self.device_id = ""

    def accept(self, grant: Grant, now_ms: int) -> None:
        """Make `grant` the one in force.

        Raises Refusal `token_expired` for a grant that would end at once (the verifier allows a leeway for clocks), and
        `invalid_token` for one of another device, session or org.
        """
        check_time_left(grant, now_ms)
        if self.grant is GRANTS_NOTHING:
            check_device(grant, self.device_id)
        else:
            check_same_session(self.grant, grant)
        self.grant = grant
