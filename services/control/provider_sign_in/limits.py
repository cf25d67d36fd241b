"""Limits of signing in with an identity provider."""

from __future__ import annotations

from datetime import timedelta

SIGN_IN_TTL = timedelta(minutes=10)
"""How long a person has at the provider's page."""
KEPT_FOR = timedelta(days=1)
"""How long a sign-in is kept; it is over long before."""
METADATA_TTL = timedelta(hours=1)
"""How long what a provider says of itself is believed, its keys too. An unknown key is asked for at once."""
CLOCK_LEEWAY_S = 60
"""By how much the provider's clock may differ."""
MAX_SUBJECT_CHARS = 255
"""OpenID Connect Core 1.0, 2."""
