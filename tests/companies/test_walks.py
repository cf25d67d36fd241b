"""Some worlds of companies; `make companies` walks thousands."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from oa_testing.postgres import Database
from tests.companies.campaign import METHODS, REASONS, Report, campaign

SEED = 20261127
STEPS = (200, *(8,) * 140)
"""One world is walked for long, the others a few steps."""


@pytest.mark.long
async def test_nobody_gets_anything_in_an_org_but_by_being_a_member(control_database: Database, tmp_path: Path) -> None:
    report = await campaign(control_database, tmp_path, SEED, STEPS)
    assert report.gaps() == []


def test_a_campaign_that_comes_to_nothing_says_so() -> None:
    assert len(Report(1, Counter(), Counter(), 0).gaps()) == len(METHODS) + len(REASONS) + 1
    seen = Counter({("CreateOrg", "org_scope_denied"): 2})
    assert "2 calls were denied, 1 are on record" in Report(1, seen, Counter(), 1).gaps()
