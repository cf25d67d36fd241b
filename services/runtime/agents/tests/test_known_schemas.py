"""A schema that was read a moment ago takes inputs, and refuses none."""

from __future__ import annotations

import json

import pytest

from oa_runlog.events import AgentSpec, RunSpec
from services.runtime.agents import app
from services.runtime.agents.app import MAX_AGE_S, Agents

NUMBER, TEXT = (json.dumps({"type": kind}) for kind in ("integer", "string"))


class Said:
    """What workers say now, and how often they were asked."""

    def __init__(self, schema: str) -> None:
        self.schema = schema
        self.reads = 0
        self.now_s = 0.0

    async def input_schema(self, _org_id: str, _adapter: str) -> str:
        self.reads += 1
        return self.schema


def spec(input_json: str, adapter: str = "support") -> RunSpec:
    return RunSpec(adapter, AgentSpec(input_json))


async def is_taken(agents: Agents, one: RunSpec, org_id: str = "org_1") -> bool:
    return await agents.fault(org_id, one) is None


async def test_it_takes_inputs_for_a_while() -> None:
    said = Said(NUMBER)
    agents = Agents(said, lambda: said.now_s)
    assert [await is_taken(agents, spec("1")) for _ in range(3)] == [True] * 3
    assert said.reads == 1
    said.now_s, said.schema = MAX_AGE_S, TEXT
    assert not await is_taken(agents, spec("1"))
    assert said.reads == 2


@pytest.mark.parametrize("now", ["", TEXT], ids=["the worker has left", "another one came"])
async def test_it_refuses_nothing_that_is_taken_now(now: str) -> None:
    said = Said(NUMBER)
    agents = Agents(said, lambda: said.now_s)
    assert await is_taken(agents, spec("1"))
    said.schema = now
    assert await is_taken(agents, spec('"text"'))


async def test_a_worker_that_attaches_here_counts_at_once() -> None:
    said = Said("")
    agents = Agents(said, lambda: said.now_s)
    assert await is_taken(agents, spec("1"))
    said.schema = TEXT
    agents.forget()
    assert not await is_taken(agents, spec("1"))


async def test_each_org_and_adapter_has_its_own_and_so_many_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MAX_SCHEMAS", 2)
    said = Said(NUMBER)
    agents = Agents(said, lambda: said.now_s)
    for org_id, adapter in (("org_1", "a"), ("org_1", "b"), ("org_2", "a"), ("org_2", "a")):
        assert await is_taken(agents, spec("1", adapter), org_id)
    assert said.reads == 3
    assert await is_taken(agents, spec("1", "a"), "org_1")
    assert said.reads == 4, "the one that was read first is forgotten"
