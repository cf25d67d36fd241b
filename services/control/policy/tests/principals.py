"""Somebody, somebody else, and principals of every kind with any scopes, for properties."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import strategies as st

from oa_base.identity import PrincipalKind
from services.control.policy.domain import Scope, StandingPrincipal

ME, MY_ORG = "usr_01JD8V0000000000000000000A", "org_01JD8V0000000000000000000A"
OTHER, OTHER_ORG = "usr_01JD8V0000000000000000000B", "org_01JD8V0000000000000000000B"
RUN = "run_01JD8V0000000000000000000A"
WORKER = "wrk_01JD8V0000000000000000000A"
NOW = datetime(2026, 1, 1, tzinfo=UTC)

scope_sets = st.frozensets(st.sampled_from(list(Scope)))
principals = st.builds(
    StandingPrincipal,
    st.sampled_from(list(PrincipalKind)),
    st.just(ME),
    st.just(MY_ORG),
    scopes=scope_sets,
    standing=scope_sets,
)
