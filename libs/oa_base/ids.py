"""The form of an id: a prefix of its kind and a ULID ("run_01JD8V…"). `oa_platform.system.ids` makes new ones."""

from __future__ import annotations

# 26 characters of Crockford base 32; the first holds only 3 of its 5 bits (ULID specification).
ULID_PATTERN = "[0-7][0-9A-HJKMNP-TV-Z]{25}"
