"""Limits of signing in with an identity provider."""

from __future__ import annotations

from datetime import timedelta

SIGN_IN_TTL = timedelta(minutes=10)
"""How long a person may take at the provider's page."""
KEPT_FOR = timedelta(days=1)
"""How long a sign-in is kept; it expires long before."""
METADATA_TTL = timedelta(hours=1)
"""How long a provider's metadata and keys are used before they are read again. An unknown key is fetched at once."""
CLOCK_LEEWAY_S = 60
"""Maximum difference between the provider's clock and ours."""
MAX_ANSWER_BYTES = 1 << 20
"""Maximum size of one answer of a provider."""
MAX_SUBJECT_CHARS = 255
"""Maximum length of a subject (OpenID Connect Core 1.0, 2)."""
