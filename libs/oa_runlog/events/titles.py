"""The default title of a run: one rule for writers of records, and for readers of records without a title."""

from __future__ import annotations

import shlex
from dataclasses import replace

from oa_runlog.events.specs import AgentSpec, ExecSpec, PromptSpec, RunSpec

TITLE_MAX_CHARS = 200
"""Maximum length of a title, as in the rule of RunSpec.title."""


def titled(spec: RunSpec) -> RunSpec:
    """Return the spec with a title: its own, or the first line of its command line or prompt, or its adapter."""
    return spec if spec.title else replace(spec, title=_default_title(spec))


def _default_title(spec: RunSpec) -> str:
    match spec.input:
        case ExecSpec(argv=argv):
            text = shlex.join(argv)
        case PromptSpec(text=prompt):
            text = prompt.strip()
        case AgentSpec():
            text = ""  # the input may be anything, so it makes no title
    line = text.splitlines()[0] if text else spec.adapter
    return line if len(line) <= TITLE_MAX_CHARS else line[: TITLE_MAX_CHARS - 1] + "…"
