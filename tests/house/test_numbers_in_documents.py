"""Defaults that pages state are those of the code: of settings, and of the limits of workers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from oa_worker.adapters.codex.limits import DEFAULT_CODEX_LIMITS
from oa_worker.sdk.limits import DEFAULT_EXEC_LIMITS
from tests.house.files import REPO, SourceFile, tracked

_NUMBER = r"(\d[\d,]*(?:\.\d+)?)(?: (ms|s|KiB|MiB|days))?"
_SETTING = re.compile(rf"`(OA_\w+)` \({_NUMBER}\b|{_NUMBER} \(`(OA_\w+)`\)")
_ROW = re.compile(rf"^\| `(\w+)` \| {_NUMBER} \|", re.MULTILINE)
_UNITS = {"ms": 1, "s": 1000, "KiB": 1024, "MiB": 1024**2, "days": 1, "": 1}
LIMITS = {"docs/exec.md": DEFAULT_EXEC_LIMITS, "docs/codex.md": DEFAULT_CODEX_LIMITS}
"""Page -> the limits that its table states."""


def wrong_defaults(files: Iterable[SourceFile], page: str) -> list[str]:
    """Numbers beside a setting, as in `OA_X` (10 s), that are not its default in the page of settings."""
    defaults = dict(re.findall(r"^\| `(OA_\w+)` \|.*\| `([\d.]+)` \|$", page, re.MULTILINE))
    found = []
    for file in files:
        for before, amount, unit, other, its, after in _SETTING.findall(" ".join(file.text.split())):
            name = before or after
            scale = 1000 if name.endswith("_S") else 1
            if name in defaults and _value(amount or other, unit or its, scale) != float(defaults[name]) * scale:
                found.append(f"{file.path}: {name}")
    return found


def wrong_limits(text: str, limits: object) -> list[str]:
    """Rows of a page's table that state no limit, or not its default."""
    defaults = vars(limits)
    return [name for name, amount, unit in _ROW.findall(text) if defaults.get(name) != _value(amount, unit, 1)]


def _value(amount: str, unit: str, bare: int) -> float:
    """The number in milliseconds, bytes, or whatever it counts; `bare`: what a number without a unit counts."""
    return float(amount.replace(",", "")) * (_UNITS[unit] if unit else bare)


def test_defaults_of_settings_are_those_of_the_code() -> None:
    page = (REPO / "docs/config.md").read_text("utf-8")
    files = [file for file in tracked() if file.path.endswith(".md") and not file.path.startswith("docs/adr/")]
    assert wrong_defaults([file for file in files if file.path != "CHANGELOG.md"], page) == []
    settings = "| `OA_A_S` | x | y | `30.0` |\n| `OA_B_BYTES` | x | y | `2048` |\n"
    good = "`OA_A_S` (30 s) `OA_A_S` (30) 2 KiB (`OA_B_BYTES`) `OA_C` (7)"
    assert wrong_defaults([SourceFile("docs/x.md", good)], settings) == []
    bad = "`OA_A_S` (30 ms) 2 MiB\n(`OA_B_BYTES`)"
    assert wrong_defaults([SourceFile("docs/x.md", bad)], settings) == ["docs/x.md: OA_A_S", "docs/x.md: OA_B_BYTES"]


def test_limits_of_workers_are_those_of_the_code() -> None:
    for path, limits in LIMITS.items():
        text = (REPO / path).read_text("utf-8").partition("\n## Limits\n")[2]
        assert wrong_limits(text, limits) == [], path
        assert len(_ROW.findall(text)) >= 6, path

    @dataclasses.dataclass
    class Limits:
        wait_ms: int = 5000
        item_bytes: int = 1024

    rows = "| `wait_ms` | 5 s | x |\n| `item_bytes` | 2 KiB | x |\n| `gone` | 3 | x |\n"
    assert wrong_limits(rows, Limits()) == ["item_bytes", "gone"]
