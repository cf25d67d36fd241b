"""The names by which certificates are found."""

from __future__ import annotations

from oa_base.refusal import Refusal
from oa_platform.config.parsers import Address, Target


def check_has_name(target: Target | Address, variable: str) -> None:
    """Raise Refusal(invalid_setting) for a target that stands for no single name in a certificate."""
    if isinstance(target, Target) and len(target.addresses) > 1:
        hint = "with certificates, name all replicas by one DNS name, which each of their certificates has"
        raise Refusal("invalid_setting", f"calls go to the addresses {target}; {hint}", field=variable)
