"""Agents, the check of the agents that a worker states, and the check of an input against an agent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from oa_base.refusal import Refusal
from oa_runlog.events import AgentSpec, RunSpec
from oa_wire.json_schema import JsonSchema
from oa_wire.strict.text import read_json

MAX_READ_SCHEMAS = 64
"""Maximum number of parsed schemas that are cached."""


@dataclass(frozen=True, slots=True)
class Agent:
    """An adapter with typed input and result. Schemas are JSON texts; an empty schema allows anything."""

    name: str
    input_schema: str = ""
    output_schema: str = ""
    description: str = ""


@lru_cache(MAX_READ_SCHEMAS)
def _schema(text: str) -> JsonSchema:
    return JsonSchema(text)


def check_agents(agents: Sequence[Agent], adapters: Sequence[str]) -> None:
    """Raise Refusal `invalid_value` for agents that a worker with these adapters can't have."""
    names: set[str] = set()
    for index, agent in enumerate(agents):
        field = f"agents[{index}]"
        if agent.name not in adapters or agent.name in names:
            text = "an agent is one of the worker's adapters, and stands there once; name each in adapters"
            raise Refusal("invalid_value", text, field=f"{field}.name")
        names.add(agent.name)
        _check_schema(agent.input_schema, f"{field}.input_schema_json")
        _check_schema(agent.output_schema, f"{field}.output_schema_json")


def _check_schema(text: str, field: str) -> None:
    try:
        if text:
            _schema(text)
    except Refusal as refusal:
        raise refusal.under(field) from None


def agents_document(agents: Sequence[Agent]) -> str:
    """The agents as stored in their worker's row: by name, without the fields that they don't state."""
    stated = {
        agent.name: {
            "input_schema": agent.input_schema,
            "output_schema": agent.output_schema,
            "description": agent.description,
        }
        for agent in agents
    }
    return json.dumps({name: {key: text for key, text in said.items() if text} for name, said in stated.items()})


def input_fault(spec: RunSpec, input_schema: str) -> Refusal | None:
    """Why the spec's input does not fit the schema; None if it may fit."""
    if not isinstance(spec.input, AgentSpec):
        text = "workers take a JSON input for this adapter; set spec.agent"
        return Refusal("invalid_value", text, field="spec.input")
    fault = _schema(input_schema).fault(read_json(spec.input.input_json))
    if fault is None:
        return None
    text = f"{fault.path} {fault.must}; give the agent an input that fits its schema"
    return Refusal("invalid_value", text, field="spec.agent.input_json", metadata={"path": fault.path})
