"""Settings that have to go together."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oa_errors import Refusal
from oa_testing.postgres import Database
from services.runtime.tests.rig import runtime_settings


def test_the_pool_has_connections_left_beside_the_lanes(runtime_database: Database) -> None:
    settings = runtime_settings(runtime_database)
    lanes = settings.sequencer.lanes
    replace(settings, database=replace(settings.database, pool_max=lanes + 2))
    with pytest.raises(Refusal) as caught:
        replace(settings, database=replace(settings.database, pool_max=lanes + 1))
    assert (caught.value.reason, caught.value.field) == ("invalid_setting", "OA_DATABASE_POOL_MAX")
