"""Limits of invitations."""

from datetime import timedelta

MAX_OPEN = 200
"""Maximum number of open invitations of an org."""
MAX_PER_HOUR = 50
"""Maximum number of invitations that an org makes in an hour."""
MAX_TO_ADDRESS_PER_DAY = 10
"""Maximum number of invitations that an address gets in a day from all orgs together."""
MAX_TO_ADDRESS_BY_ONE_PER_DAY = 5
"""Maximum number of these that one person makes, in whichever orgs: the others stay for those who know the address."""
MAX_MAILS = 5
"""Maximum number of mails that are sent for one invitation."""
RESEND_AFTER = timedelta(minutes=10)
"""Minimum time between two mails for one invitation."""
INVITATION_TTL = timedelta(days=7)
"""How long an invitation is open after it was made, or after its mail was last asked for again."""
KEPT_FOR = timedelta(days=30)
"""How long an invitation is kept after it has ended or expired."""
