"""Every value of oa_runlog, made by hypothesis within the rules of the contract."""

from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType

from hypothesis import strategies as st

from oa_runlog import events as ev

RUN_ID, OTHER_RUN_ID = "run_01JD0000000000000000000000", "run_01JD0000000000000000000001"
ORG_ID, USER_ID = "org_01JD0000000000000000000000", "usr_01JD0000000000000000000000"
WORKER_ID, OTHER_WORKER_ID = "wrk_01JD0000000000000000000000", "wrk_01JD0000000000000000000001"

uint32 = st.integers(0, 2**32 - 1)
uint64 = st.integers(0, 2**64 - 1)
positive = st.integers(1, 2**63 - 1)
times_ns = st.integers(0, 4_102_444_800 * 10**9)


def text(max_size: int = 20, min_size: int = 0) -> st.SearchStrategy[str]:
    """Text that the contract takes: no NUL, no lone surrogate."""
    alphabet = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
    return st.text(alphabet, min_size=min_size, max_size=max_size)


word = text(min_size=1)
json_values: st.SearchStrategy[ev.Json] = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text(), inner, max_size=3),
    max_leaves=8,
)
json_objects: st.SearchStrategy[ev.JsonObject] = st.dictionaries(text(), json_values, max_size=3)
optional_objects = st.none() | json_objects
json_texts = json_values.map(json.dumps)
text_maps = st.dictionaries(text(), text(), max_size=3).map(MappingProxyType)

exec_specs = st.builds(
    ev.ExecSpec,
    argv=st.lists(text(), min_size=1, max_size=4).map(tuple),
    working_directory=text(),
    environment=text_maps,
    timeout_ms=uint64,
    stdin=st.booleans(),
    terminal=st.none() | st.builds(ev.Terminal, st.integers(1, 1000), st.integers(1, 1000)),
)
long_ms = st.integers(0, 31_536_000_000)
queues = st.builds(
    ev.QueuePolicy,
    priority=st.integers(-100, 100),
    not_before_ns=st.none() | times_ns,
    start_timeout_ms=long_ms,
    run_timeout_ms=long_ms,
    concurrency=st.none() | st.builds(ev.Concurrency, key=word, limit=st.integers(1, 10_000)),
    retry=st.none()
    | st.builds(
        ev.RetryPolicy,
        max_failures=st.integers(2, 100),
        initial_delay_ms=st.integers(0, 86_400_000),
        max_delay_ms=st.integers(0, 86_400_000),
        reasons=st.lists(st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True), max_size=3).map(tuple),
    ),
)
_specs = st.builds(
    ev.RunSpec,
    adapter=st.from_regex(r"[a-z][a-z0-9_.-]{0,20}", fullmatch=True),
    input=exec_specs | st.builds(ev.PromptSpec, text=word) | st.builds(ev.AgentSpec, input_json=json_texts),
    title=text(),
    thread_id=text(),
    labels=text_maps,
    retention_class=st.just("") | st.from_regex(r"[a-z][a-z0-9_-]{0,31}", fullmatch=True),
    queue=st.just(ev.AT_ONCE) | queues,
)
specs = _specs | st.builds(
    lambda spec, thread_id, policy: replace(spec, thread_id=thread_id, thread_policy=policy),
    _specs,
    word,
    st.sampled_from(ev.ThreadPolicy),
)
exec_results = st.builds(
    ev.ExecResult,
    exit_code=st.none() | st.integers(-(2**31), 2**31 - 1),
    signal=st.integers(-(2**31), 2**31 - 1),
    duration_ms=uint64,
    stdout_bytes=uint64,
    stderr_bytes=uint64,
)
finishes = st.builds(
    ev.RunFinished,
    outcome=st.sampled_from(ev.Outcome),
    reason=text(),
    message=text(),
    exec=st.none() | exec_results,
) | st.builds(ev.RunFinished, outcome=st.just(ev.Outcome.SUCCEEDED), result_json=json_texts)
codex_events = st.builds(
    ev.CodexEvent,
    kind=st.one_of(
        st.builds(ev.TurnStatusChanged, turn_id=word, status=st.sampled_from(ev.TurnStatus), message=text()),
        st.builds(ev.CodexItem, item_type=word, turn_id=text(), item_id=text(), content=optional_objects),
        st.builds(ev.ControlRequest, request_id=word, action=word, detail=optional_objects),
        st.builds(ev.ControlReceipt, request_id=word, outcome=st.sampled_from(ev.ControlOutcome), message=text()),
    ),
    codex_thread_id=text(),
)
tool_results = st.one_of(
    st.builds(ev.ToolResult, call_id=word, failed=st.booleans()),
    st.builds(ev.ToolResult, call_id=word, failed=st.booleans(), result=json_values, has_result=st.just(True)),
)
request_ids = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,9}", fullmatch=True)
deadlines = st.none() | st.integers(0, 2**60)
requests_opened = st.one_of(
    st.builds(
        ev.RequestOpened, request_id=request_ids, kind=st.just(ev.RequestKind.APPROVAL), title=word, detail=text(),
        default_option=st.sampled_from(["", "no"]), deadline_ns=deadlines,
    ),
    st.builds(
        ev.RequestOpened, request_id=request_ids, kind=st.just(ev.RequestKind.CHOICE), title=word,
        options=st.lists(st.builds(ev.RequestOption, id=word, label=text()), min_size=1, max_size=4,
                         unique_by=lambda option: option.id).map(tuple),
        deadline_ns=deadlines,
    ),
    st.builds(ev.RequestOpened, request_id=request_ids, kind=st.just(ev.RequestKind.TEXT), title=word),
)  # fmt: skip
work_bodies: st.SearchStrategy[ev.EventBody] = st.one_of(
    st.builds(ev.TextDelta, stream=st.sampled_from(ev.TextStream), data=st.binary(max_size=40)),
    st.builds(ev.ToolCall, call_id=word, name=word, arguments=optional_objects),
    tool_results,
    st.builds(ev.Message, role=st.sampled_from(ev.MessageRole), text=text()),
    st.builds(ev.Verification, name=word, passed=st.booleans(), detail=text()),
    requests_opened,
    st.builds(
        ev.StepCompleted,
        ordinal=st.integers(1, 1_000_000),
        name=word,
        fingerprint=st.binary(min_size=32, max_size=32),
        result_json=json_texts,
    ),
    st.builds(ev.CheckpointSaved, number=st.integers(1, 1_000_000_000), state_json=json_texts),
    st.builds(ev.ProgressReported, text=word, done=st.none() | uint64, total=st.none() | uint64),
    st.builds(ev.Usage, model=text(), input_tokens=uint64, output_tokens=uint64, cached_input_tokens=uint64),
    codex_events,
    st.builds(
        ev.Custom, type=st.from_regex(r"[a-z][a-z0-9_]{0,9}(\.[a-z0-9_]{1,9}){1,2}", fullmatch=True),
        data=optional_objects,
    ),
)  # fmt: skip
authority_bodies: st.SearchStrategy[ev.EventBody] = st.one_of(
    st.builds(ev.RunCreated, user_id=word, org_id=word, spec=specs, parent_run_id=st.sampled_from(["", RUN_ID])),
    st.builds(
        ev.ChildStarted,
        child_id=request_ids,
        run_id=st.just(OTHER_RUN_ID),
        adapter=st.just("quote"),
        input_sha256=st.sampled_from([b"", bytes(32)]),
    ),
    st.builds(ev.ChildFinished, run_id=st.just(OTHER_RUN_ID), finish=finishes),
    st.builds(ev.RunStarted, worker_id=word, lease_epoch=positive, attempt=st.integers(1, 2**32 - 1)),
    st.builds(ev.RunCancelRequested, requested_by=word, reason=text()),
    st.builds(ev.InputReceived, sent_by=word, input_json=json_texts),
    st.builds(ev.RequestAnswered, request_id=request_ids, option=text(), text=text(), answered_by=word),
    st.builds(ev.RequestExpired, request_id=request_ids, option=text()),
    st.builds(
        ev.ExecutorLost, worker_id=word, lease_epoch=positive, attempt=st.integers(1, 2**32 - 1),
        requeued=st.booleans(),
    ),
    st.builds(
        ev.AttemptFailed, worker_id=word, lease_epoch=positive, attempt=st.integers(1, 2**32 - 1),
        failure=st.builds(ev.RunFinished, outcome=st.just(ev.Outcome.FAILED), reason=text(), message=text(),
                          exec=st.none() | exec_results),
        retry_ns=times_ns,
    ),
)  # fmt: skip
bodies: st.SearchStrategy[ev.EventBody] = work_bodies | finishes | authority_bodies
