"""Limits of orgs."""

MAX_OWNED_ORGS = 20
"""Maximum number of orgs that a person is an owner of. The person's own org isn't counted; deleted orgs count until
they are gone."""
MAX_ENDED_AT_A_TIME = 100
"""Maximum number of orgs that one sweep ends."""
