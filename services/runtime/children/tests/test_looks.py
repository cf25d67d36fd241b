"""Looks after children while one org is overloaded: what concerns one of them keeps nobody else from anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from oa_base.refusal import Refusal
from oa_runlog.authority.commands import RequestCancel, TellChild
from oa_runlog.events import Outcome, RunFinished
from services.runtime.children.app import Children, EndedChild, Orphan
from services.runtime.children.limits import ChildLimits

FULL = Refusal("overloaded", "too many commands wait")


class OneOrgsLog:
    """Takes no command of an org that floods it."""

    def __init__(self, floods: str) -> None:
        self._floods = floods
        self.did: list[TellChild | RequestCancel] = []

    async def do(self, command: TellChild | RequestCancel) -> None:
        if command.org_id == self._floods:
            raise FULL
        self.did.append(command)


class Looked:
    """Two families in each org: a child that has ended, and an orphan."""

    def __init__(self, *orgs: str) -> None:
        finish = RunFinished(Outcome.SUCCEEDED)
        self._ended = [EndedChild(f"ended_{org}", finish, f"parent_{org}", org, is_awaited=True) for org in orgs]
        self._orphans = [Orphan(f"orphan_{org}", org, "usr_1", f"gone_{org}") for org in orgs]
        self.told_of: list[str] = []

    async def ended(self, limit: int, _broken: object) -> Sequence[EndedChild]:
        return [one for one in self._ended if one.run_id not in self.told_of][:limit]

    async def told(self, run_ids: Sequence[str]) -> None:
        self.told_of += run_ids

    async def orphans(self, limit: int, left_out: Sequence[str]) -> Sequence[Orphan]:
        return [one for one in self._orphans if one.run_id not in left_out][:limit]


async def test_an_org_that_floods_the_log_keeps_no_other_from_anything() -> None:
    log, families = OneOrgsLog("org_1"), Looked("org_1", "org_2")
    children = Children(cast("Any", log), cast("Any", None), cast("Any", families), cast("Any", None), ChildLimits())
    with pytest.raises(Refusal) as caught:
        await children.look_once()
    assert caught.value is FULL
    assert families.told_of == ["ended_org_2"], "else it would be told again and again, and be in the way of later ones"
    assert [(type(one), one.run_id) for one in log.did] == [
        (TellChild, "parent_org_2"),
        (RequestCancel, "orphan_org_2"),
    ]
