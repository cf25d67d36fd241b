"""Limits of the web shell."""

MAX_FILES = 10_000
"""Maximum number of files of a release."""
MAX_MANIFEST_BYTES = 4 << 20
"""Maximum size of a release's manifest."""
ASSET_MAX_AGE_S = 365 * 86_400
"""How long browsers keep a file that is named by its content."""
