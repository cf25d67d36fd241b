"""A set in a value has the same JSON text in every process: steps and children are compared by it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field

from pydantic import BaseModel, Field, RootModel

from oa_wire.shapes import json_text

NAMES = frozenset({"rice", "salt", "tea", "oil", "soap", "milk"})


class _Model(BaseModel):
    named: frozenset[str] = Field(default=NAMES, serialization_alias="other-name")
    inner: RootModel[list[set[str]]] = RootModel[list[set[str]]]([{*NAMES}])


@dataclass
class _Record:
    many: dict[int, tuple[frozenset[str], int]] = field(default_factory=lambda: {1: (NAMES, 7)})
    models: list[_Model] = field(default_factory=lambda: [_Model()])
    nested: frozenset[frozenset[str]] = frozenset({NAMES, frozenset({"z", "y"})})


def test_the_order_of_sets_is_that_of_their_elements_texts() -> None:
    ordered = sorted(NAMES)
    model = {"other-name": ordered, "inner": [ordered]}
    expected = {"many": {"1": [ordered, 7]}, "models": [model], "nested": [ordered, ["y", "z"]]}
    assert json.loads(json_text(_Record(), "input")) == expected
    assert json_text({3, 2, 1}, "input") == "[1,2,3]"


def test_every_process_gives_the_same_text() -> None:
    code = f"from {__name__} import _Record, json_text; print(json_text(_Record(), 'input'))"
    environments = [{**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)} for seed in "123"]
    texts = {subprocess.check_output([sys.executable, "-c", code], env=each, text=True) for each in environments}
    assert texts == {json_text(_Record(), "input") + "\n"}
