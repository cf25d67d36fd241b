"""The runs that are recorded of every release. Together they pass through every entry of the table of runs, and try
everything that is not in it, in every status.

A story that is recorded keeps its name and its course; another course is another story.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from oa_runlog.events import (
    AgentSpec,
    CheckpointSaved,
    ChildFinished,
    ChildStarted,
    CodexEvent,
    CodexItem,
    Concurrency,
    ControlOutcome,
    ControlReceipt,
    ControlRequest,
    Custom,
    EventBody,
    ExecResult,
    ExecSpec,
    Message,
    MessageRole,
    Outcome,
    ProgressReported,
    PromptSpec,
    QueuePolicy,
    RequestAnswered,
    RequestExpired,
    RequestKind,
    RequestOpened,
    RequestOption,
    RetryPolicy,
    RunFinished,
    RunSpec,
    StepCompleted,
    TextDelta,
    TextStream,
    ThreadPolicy,
    ToolCall,
    ToolResult,
    TurnStatus,
    TurnStatusChanged,
    Usage,
    Verification,
)
from oa_runlog.state import MAX_TOTAL
from tests.contract.histories.teller import Teller, Tried, run_id_of

_SUCCEEDED = RunFinished(Outcome.SUCCEEDED, exec=ExecResult(0, 0, 1250, 4096, 17))
_FAILED = RunFinished(Outcome.FAILED, "nonzero_exit", "git ended with status 128", ExecResult(128, 0, 12, 0, 44))
_CANCELED = RunFinished(Outcome.CANCELED, "canceled", "ended on request", ExecResult(None, 15, 300, 0, 0))

# Every kind of work, in its variants; once only each, so that no total equals another.
_WORK: tuple[EventBody, ...] = (
    TextDelta(TextStream.STDOUT, b"not utf-8: \xff\xfe\n"),
    TextDelta(TextStream.STDERR, b"half a character: \xc3"),
    TextDelta(TextStream.ASSISTANT, "Grüße, 世界 🌍".encode()),
    TextDelta(TextStream.REASONING, b""),
    Message(MessageRole.SYSTEM, "Be brief."),
    Message(MessageRole.USER, "What is 2 + 2?"),
    Message(MessageRole.ASSISTANT),
    ToolCall("c1", "add", {"a": 2.0, "b": 2.0, "more": {"list": [True, None, "x", -0.5]}}),
    ToolResult("c1", result=4.0, has_result=True),
    ToolCall("c2", "clear"),
    ToolResult("c2", failed=True),
    ToolResult("c3", result=None, has_result=True),
    ToolCall("c4", "list", {}),
    ToolCall("c5", "list"),
    Verification("tests", passed=True, detail="12 passed"),
    Verification("lint", detail="3 findings"),
    Usage("m-1", 1200, 34, 1000),
    Usage("m-2", 7, 9, 2),
    CodexEvent(TurnStatusChanged("t1", TurnStatus.IN_PROGRESS), "th1"),
    CodexEvent(CodexItem("command", "t1", "i1", {"command": "ls"}), "th1"),
    CodexEvent(ControlRequest("q1", "exec", {"command": "rm -r build"}), "th1"),
    CodexEvent(ControlReceipt("q1", ControlOutcome.DECLINED, "not here"), "th1"),
    CodexEvent(TurnStatusChanged("t1", TurnStatus.COMPLETED, "done")),
    Custom("acme.progress", {"percent": 12.5}),
    Custom("acme.done"),
    StepCompleted(1, "quote", bytes(range(32)), '{"price":12.5}'),
    StepCompleted(2, "charge", bytes(32), "null"),
    RequestOpened(
        "r1", RequestKind.APPROVAL, "Order for 12.50?", "the cheapest", default_option="no", deadline_ns=9**18
    ),
    RequestOpened("r2", RequestKind.CHOICE, "Which?", options=(RequestOption("a", "The first"), RequestOption("b"))),
    RequestOpened("r3", RequestKind.TEXT, "Why?"),
    CheckpointSaved(1, '{ "done": 1.50, "next": "ß" }'),
    CheckpointSaved(2, "null"),
    ProgressReported("begins"),
    ProgressReported("3 von 10 Größen", 0, 10),
)


def absent(run: Teller) -> None:
    """Nothing but its creation happens to a run that does not exist."""
    run.try_everything_else()


def waiting(run: Teller) -> None:
    """A run waits for its first worker."""
    run.create()
    run.try_everything_else()


def described(run: Teller) -> None:
    """A prompt of several lines, a thread, labels; the title is made from the prompt."""
    prompt = PromptSpec("  Schreib einen Gruß: 世界 🌍\nund noch eine Zeile")
    run.create(RunSpec("codex", prompt, thread_id="thr-1", labels={"team": "search", "": "empty", "z": "é"}))


def commanded(run: Teller) -> None:
    """A command with arguments to quote, a directory, an environment, a time limit and a title."""
    command = ExecSpec(("sh", "-c", "echo 'a b'"), "/srv/data", {"LC_ALL": "C", "A": ""}, 60_000)
    run.create(RunSpec("exec", command, title="Say a b"))
    run.assign(1)


def kept_by_name(run: Teller) -> None:
    """A run names its retention class; one that names none, as in every other history, has the class `default`."""
    run.create(RunSpec("exec", ExecSpec(("true",)), retention_class="default"))
    run.assign()
    run.append(_SUCCEEDED)


def asked_and_answered(run: Teller) -> None:
    """An agent gets an input and returns a result; both are JSON texts, kept to the letter."""
    question = AgentSpec('{ "question": "Wie heißt die Hauptstadt von Österreich?", "most": 1.50 }')
    run.create(RunSpec("support", question))
    run.assign()
    run.append(Message(MessageRole.ASSISTANT, "Wien"))
    run.append(RunFinished(Outcome.SUCCEEDED, result_json='{"text":"Wien","sure":1e0}'))


def talked_to(run: Teller) -> None:
    """A person talks to a run: before a worker has it, while one works, and while the run waits for the next one."""
    run.create(RunSpec("support", AgentSpec("{}")))
    run.hear('"early"')
    run.assign()
    run.hear('{ "say": "Grüße, 世界", "n": 1.50 }')
    run.lose()
    run.hear("null")
    run.assign(1)
    run.append(RunFinished(Outcome.SUCCEEDED, result_json='"heard"'))


def asked_people(run: Teller) -> None:
    """A run asks for an approval and a text: one is answered, the other's time is over; then it is done."""
    run.create(RunSpec("support", AgentSpec("{}")))
    run.assign()
    run.append(RequestOpened("r1", RequestKind.APPROVAL, "Order?", default_option="no"))
    run.append(RequestOpened("r2", RequestKind.TEXT, "Why?"))
    run.settle(RequestAnswered("r1", "yes", "", "usr_answers"))
    run.lose()
    run.settle(RequestExpired("r2", ""))
    run.assign(1)
    run.append(RunFinished(Outcome.SUCCEEDED, result_json='"ordered"'))


def worked_and_succeeded(run: Teller) -> None:
    """Every kind of work, one event an append, then success; nothing can follow it."""
    run.create()
    run.assign()
    run.try_everything_else()
    for body in _WORK:
        run.append(body)
    run.append(_SUCCEEDED)
    run.try_everything_else()


def worked_in_one_batch(run: Teller) -> None:
    """The same work and its finish in a single append, sent twice."""
    run.create()
    run.assign()
    run.append(*_WORK, _SUCCEEDED)
    run.repeat_append(*_WORK, _SUCCEEDED)
    run.finish_again(_SUCCEEDED)


def failed(run: Teller) -> None:
    """The command fails after a word on stderr; nothing can follow."""
    run.create()
    run.assign()
    run.append(TextDelta(TextStream.STDERR, b"fatal: not a git repository\n"), _FAILED)
    run.finish_again(_FAILED)
    run.try_everything_else()


def counted_to_the_end(run: Teller) -> None:
    """Totals stop at the largest integer that every reader of JSON agrees on."""
    run.create()
    run.assign()
    run.append(Usage("m-1", MAX_TOTAL - 1, MAX_TOTAL, 2**64 - 1))
    run.append(Usage("m-1", 1, 1, 1))
    run.append(Usage("m-1", 1, 1, 1))
    run.append(RunFinished(Outcome.SUCCEEDED, exec=ExecResult(-1, 0, 2**64 - 1, 2**53, 2**53 - 1)))


def out_of_order(run: Teller) -> None:
    """What the table has is refused all the same when its seq is not the next one."""
    text = TextDelta(TextStream.STDOUT, b"a")
    run.create()
    run.assign()
    run.append(text)
    run.try_out_of_order(text, seq=3)
    run.try_out_of_order(text, seq=5)
    run.try_out_of_order(text, seq=1)
    run.append(text)


def lost_and_waiting(run: Teller) -> None:
    """The worker is lost; the run waits for another one and is still running."""
    run.create()
    run.assign()
    run.append(TextDelta(TextStream.STDOUT, b"half"))
    run.lose()
    run.try_everything_else()


def lost_and_taken_over(run: Teller) -> None:
    """The worker is lost, another one takes over under a higher lease epoch, and succeeds."""
    run.create()
    run.assign()
    run.append(ToolCall("c1", "add"))
    run.lose()
    run.assign(1)
    run.lose_long_ago()
    run.append(ToolCall("c1", "add"), ToolResult("c1"), _SUCCEEDED)


def lost_too_often(run: Teller) -> None:
    """Four workers are lost one after the other: three times the run is requeued, then it fails."""
    run.create()
    for attempt in range(4):
        run.assign(attempt % 2)
        run.lose()
    run.try_everything_else()


_RETRIED = RunSpec("support", AgentSpec("{}"), queue=QueuePolicy(retry=RetryPolicy(3, initial_delay_ms=1_000)))


def failed_and_tried_again(run: Teller) -> None:
    """An agent fails and is tried again after a pause; that its worker is lost is counted apart; then it succeeds."""
    run.create(_RETRIED)
    run.assign()
    error = RunFinished(Outcome.FAILED, "agent_error", "ValueError: not today")
    run.append(Message(MessageRole.ASSISTANT, "let me see"), error)
    run.try_everything_else()
    run.assign(1, after_ms=1_000)
    run.lose()
    run.assign()
    run.append(RunFinished(Outcome.FAILED, "agent_error", "ValueError: nor today"))
    run.assign(after_ms=2_000)
    run.append(RunFinished(Outcome.SUCCEEDED, result_json="1"))


def failed_as_often_as_it_may(run: Teller) -> None:
    """The last failure that the policy allows ends the run."""
    run.create(_RETRIED)
    for pause_ms in (0, 1_000, 2_000):
        run.assign(after_ms=pause_ms)
        run.append(RunFinished(Outcome.FAILED, "agent_error"))
    run.try_everything_else()


def failed_for_good(run: Teller) -> None:
    """Another attempt would end alike, by the reason: it is not made."""
    run.create(_RETRIED)
    run.assign()
    run.append(RunFinished(Outcome.FAILED, "invalid_input"))


def never_started(run: Teller) -> None:
    """No worker starts it in the time that its policy states."""
    run.create(RunSpec("support", AgentSpec("{}"), queue=QueuePolicy(-5, start_timeout_ms=5_000)))
    run.miss_deadline(5_000)
    run.try_everything_else()


def started_children(run: Teller) -> None:
    """A run that another one started starts two itself: one ends, and the other's end is told after a takeover."""
    run.create(RunSpec("support", AgentSpec("{}")), "run_01K0000000000000000000000P")
    run.assign()
    first, second = "run_01K0000000000000000000000C", "run_01K0000000000000000000000D"
    run.settle(ChildStarted("c1", first, "quote"))
    run.settle(ChildStarted("c2", second, "quote"))
    run.settle(ChildFinished(first, RunFinished(Outcome.SUCCEEDED, result_json='"12.50"')))
    run.lose()
    run.settle(ChildFinished(second, RunFinished(Outcome.FAILED, "agent_error", "ValueError: no")))
    run.assign(1)
    run.append(RunFinished(Outcome.SUCCEEDED, result_json="1"))


def waited_in_its_thread(run: Teller) -> None:
    """A run that has its turn in a thread; whether others of the thread go on is not in its log."""
    run.create(RunSpec("support", AgentSpec("{}"), thread_id="thr-1", thread_policy=ThreadPolicy.INTERRUPT))
    run.assign()
    run.append(RunFinished(Outcome.SUCCEEDED, result_json="1"))


def took_too_long(run: Teller) -> None:
    """It does not end in the time that its policy states, which goes on while it waits for its second worker."""
    queue = QueuePolicy(7, run_timeout_ms=60_000, concurrency=Concurrency("deploy", 1))
    run.create(RunSpec("exec", ExecSpec(("sleep", "90")), queue=queue))
    run.assign()
    run.lose()
    run.assign(1)
    run.miss_deadline(60_000)


def canceled_before_the_first_worker(run: Teller) -> None:
    """A cancel ends a run that no worker has, at once; nothing can follow."""
    run.create()
    run.cancel("changed my mind")
    run.try_everything_else()


def canceled_between_two_workers(run: Teller) -> None:
    """A cancel ends a run that waits for its second worker, at once."""
    run.create()
    run.assign()
    run.lose()
    run.cancel()


def canceled_by_its_worker(run: Teller) -> None:
    """Asked to cancel, the worker sends every kind of work that was on its way, then ends the run as asked."""
    run.create()
    run.assign()
    run.cancel("enough")
    run.cancel_again()
    run.look_at_deadline_early()
    run.try_everything_else()
    for body in _WORK:
        run.append(body)
    run.append(_CANCELED)
    run.finish_again(_CANCELED)


def succeeded_all_the_same(run: Teller) -> None:
    """A success that was on its way when the cancel was asked for counts as what it is."""
    run.create()
    run.assign()
    run.cancel("too late")
    run.append(_SUCCEEDED)
    run.cancel_again()


def failed_all_the_same(run: Teller) -> None:
    """A failure that was on its way when the cancel was asked for counts as what it is."""
    run.create()
    run.assign()
    run.cancel()
    run.append(_FAILED)


def lost_while_canceling(run: Teller) -> None:
    """The worker is lost after the cancel: the authority ends the run, nobody takes it over."""
    run.create()
    run.assign()
    run.append(TextDelta(TextStream.STDOUT, b"on it"))
    run.cancel()
    run.lose()


def canceled_by_the_deadline(run: Teller) -> None:
    """The worker does not react to the cancel in time: its lease is fenced and the authority ends the run."""
    run.create()
    run.assign()
    run.cancel("enough")
    run.append(Message(MessageRole.ASSISTANT, "just a moment"))
    run.miss_deadline()


@dataclass(frozen=True, slots=True)
class Story:
    """One run to record; `tell` drives it."""

    tell: Callable[[Teller], None]

    @property
    def name(self) -> str:
        """Name of its file."""
        return self.tell.__name__

    @property
    def shows(self) -> str:
        """What it shows, in a sentence."""
        return str(self.tell.__doc__)

    @property
    def run_id(self) -> str:
        """Its run's id."""
        return run_id_of(self.name)

    def told(self) -> Sequence[bytes | Tried]:
        """The stored bytes of its events, and what was tried between them."""
        teller = Teller(self.name)
        self.tell(teller)
        return teller.told


STORIES = tuple(
    Story(tell)
    for tell in (
        absent,
        waiting,
        described,
        commanded,
        kept_by_name,
        asked_and_answered,
        talked_to,
        asked_people,
        worked_and_succeeded,
        worked_in_one_batch,
        failed,
        counted_to_the_end,
        out_of_order,
        lost_and_waiting,
        lost_and_taken_over,
        lost_too_often,
        failed_and_tried_again,
        failed_as_often_as_it_may,
        failed_for_good,
        never_started,
        started_children,
        waited_in_its_thread,
        took_too_long,
        canceled_before_the_first_worker,
        canceled_between_two_workers,
        canceled_by_its_worker,
        succeeded_all_the_same,
        failed_all_the_same,
        lost_while_canceling,
        canceled_by_the_deadline,
    )
)
