"""What the runtime should answer: a small model of an org's runs, after the contract and not after the code.

A worker is attached or not, nobody is lost by silence, and no time is ever over.
"""

from __future__ import annotations

from services.runtime.tests.random_runs.authority import Authority
from services.runtime.tests.random_runs.records import Answer, Entry, Run, Said, Stored, Wish

RESERVED = {"input_received", "request_answered", "run_started", "child_finished"}
"""What only the authority writes, as far as the programs try it."""


def repeated(known: tuple[object, Stored], content: object) -> Answer:
    """The answer under a key that is known."""
    before, stored = known
    return stored._replace(again=True) if before == content else "idempotency_conflict"


class World(Authority):
    """An org's runs, and what is answered to commands on them."""

    def __init__(self) -> None:
        super().__init__()
        self.created: dict[str, tuple[Wish, str]] = {}
        """Key -> what was wished for, and the run."""

    # --------------------------------------------------------------------------------------------- people

    def known(self, key: str, wish: Wish) -> str:
        """The run that was created under the key, `idempotency_conflict`, or empty for a new key."""
        before, run_id = self.created.get(key, (wish, ""))
        return run_id if before == wish else "idempotency_conflict"

    def is_busy(self, wish: Wish) -> bool:
        """Whether a run that does not wait can't be created."""
        return wish.thread_policy == "reject" and any(
            run.wish.thread == wish.thread and not run.is_over for run in self.runs.values()
        )

    def add(self, run_id: str, key: str, wish: Wish, parent: str = "", *, ends_with_parent: bool = False) -> None:
        """A new run."""
        run = self.runs[run_id] = Run(run_id, wish, parent, ends_with_parent)
        run.store(Entry("run_created", 0, wish.title))
        self.created[key] = wish, run_id

    def send(self, run: Run, key: str, says: str) -> Answer:
        """Somebody says something to the run. Keys of people are not those of workers."""
        key = f"input/{key}"
        if key in run.keys:
            return repeated(run.keys[key], says)
        if not run.is_going_on:
            return "invalid_transition"
        stored = run.store(Entry("input_received", 0, says))
        run.keys[key] = says, stored
        self._news(run)
        return stored

    def answer(self, run: Run, request_id: str, option: str) -> Answer:
        """Somebody answers a request. What settled it stays after the run."""
        if request_id not in run.requests:
            return "invalid_transition" if run.is_over else "not_found"
        if option not in ("yes", "no"):
            return "invalid_value"
        return self._settle(run, request_id, option)

    # --------------------------------------------------------------------------------------------- workers

    def append(self, run: Run, worker: str, epoch: int, key: str, said: tuple[Said, ...], seq: int | None) -> Answer:
        """A worker appends; `seq` is the newest one that it expects."""
        if key in run.keys:
            return repeated(run.keys[key], said)
        # Who has finished the run has kept its lease: it may hear that again.
        has_lease = run.is_held or (run.is_over and run.log[-1].epoch > 0)
        if not has_lease or (worker, epoch) != (run.worker, run.epoch):
            return "stale_epoch"
        if seq is not None and seq != len(run.log):
            return "seq_conflict"
        if any(one.kind in RESERVED for one in said):
            return "event_reserved"
        if run.is_over and len(said) == 1 and said[0].kind == "run_finished":
            last = len(run.log)
            return Stored(last, last, again=True) if said[0].says == run.status else "already_finished"
        if not self._takes(run, said):
            return "invalid_transition"
        stored = self._store_work(run, epoch, said)
        run.keys[key] = said, stored
        return stored

    def _takes(self, run: Run, said: tuple[Said, ...]) -> bool:
        is_fine = not run.is_over and all(one.kind != "run_finished" for one in said[:-1])
        return is_fine and (said[-1] != Said("run_finished", "canceled") or run.status == "canceling")

    def _store_work(self, run: Run, epoch: int, said: tuple[Said, ...]) -> Stored:
        first = len(run.log) + 1
        for kind, says in said:
            if kind != "run_finished":
                run.store(Entry(kind, epoch, says))
                if kind == "request_opened":
                    run.requests.setdefault(says, None)
            elif says == "failed" and run.status == "running" and run.failures + 1 < run.wish.max_failures:
                run.store(Entry("attempt_failed", 0))
                run.failures, run.is_held = run.failures + 1, False
            else:
                run.end(says, epoch)
        return Stored(first, len(run.log))

    def expire(self, run: Run, request_id: str) -> Answer:
        """The holder says that the time of a request is over."""
        return self._settle(run, request_id, "") if request_id in run.requests else "not_found"

    def add_child(
        self, run_id: str, key: str, wish: Wish, parent: Run, child_id: str, *, ends_with_parent: bool
    ) -> None:
        """A new run of a run, which says so in its log."""
        self.add(run_id, key, wish, parent.run_id, ends_with_parent=ends_with_parent)
        parent.store(Entry("child_started", 0, f"{child_id}/{run_id}"))

    def _settle(self, run: Run, request_id: str, option: str) -> Answer:
        settled = run.requests[request_id]
        if settled is not None:
            return "request_settled" if option and option != settled[0] else settled[1]._replace(again=True)
        if run.status != "running":
            return "invalid_transition"
        kind = "request_answered" if option else "request_expired"
        stored = run.store(Entry(kind, 0, f"{request_id}/{option or 'no'}"))
        run.requests[request_id] = option, stored
        self._news(run)
        return stored
