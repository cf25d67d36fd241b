"""A run has a title, whether it was given one or not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oa_runlog.events import AgentSpec, ExecSpec, PromptSpec, RunSpec
from oa_runlog.events.titles import TITLE_MAX_CHARS, titled

INPUTS = st.builds(PromptSpec, st.text(max_size=400)) | st.builds(
    ExecSpec, st.lists(st.text(max_size=150), max_size=4).map(tuple)
)


@pytest.mark.parametrize(
    ("spec", "title"),
    [
        (RunSpec("exec", ExecSpec(("echo", "a b"))), "echo 'a b'"),
        (RunSpec("exec", ExecSpec(("echo", "a\nb"))), "echo 'a"),
        (RunSpec("codex", PromptSpec("  Fix it\nplease")), "Fix it"),
        (RunSpec("codex", PromptSpec("   ")), "codex"),
        (RunSpec("support", AgentSpec('{"question":"why"}')), "support"),
        (RunSpec("exec", ExecSpec(("x" * 200,))), "x" * 200),
        (RunSpec("exec", ExecSpec(("x" * 300,))), "x" * 199 + "…"),
        (RunSpec("exec", ExecSpec(("a",)), title="Mine"), "Mine"),
    ],
    ids=["argv", "lines", "prompt", "blank", "agent", "longest", "long", "given"],
)
def test_a_run_without_a_title_gets_one(spec: RunSpec, title: str) -> None:
    assert titled(spec).title == title


@given(INPUTS)
def test_every_title_is_one_line_within_the_rule_and_stays(what: ExecSpec | PromptSpec) -> None:
    spec = titled(RunSpec("exec", what))
    assert 0 < len(spec.title) <= TITLE_MAX_CHARS
    assert len(spec.title.splitlines()) == 1
    assert titled(spec) == spec
    assert spec.input == what
