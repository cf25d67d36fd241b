"""What the authority does by itself, in the model: it gives runs to the worker, ends them, tells who has to know."""

from __future__ import annotations

from services.runtime.tests.random_runs.records import Entry, Run

MAX_REQUEUES = 3
MAX_RUNNING = 2
"""Runs of an org that workers have at a time; of a run and those below it the lowest counts."""


class Authority:
    """An org's runs, and the worker whose stream is open."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.attached = ""
        """The worker with a stream, which hears what happens to its runs."""
        self.takes_runs = False
        self.notices: list[tuple[str, str, int]] = []
        """What the attached worker should be told: kind, run, and lease epoch or seq."""

    def cancel(self, run: Run) -> None:
        """Somebody wants the end of the run, or the authority does."""
        if not run.is_going_on:
            return
        run.store(Entry("run_cancel_requested", 0))
        if run.is_held:
            run.status = "canceling"
            self._tell("cancel", run, run.epoch)
        else:
            run.end("canceled")

    def is_a_family_moved_by_the_loss_of(self, worker: str) -> bool:
        """Whether a run would end with the worker that has a parent, or children."""
        held = [run for run in self.runs.values() if run.is_held and run.worker == worker]
        ends = [run for run in held if run.status == "canceling" or run.epoch - run.failures > MAX_REQUEUES]
        parents = {run.parent for run in self.runs.values()}
        return any(run.parent or run.run_id in parents for run in ends)

    def start(self, run: Run, worker: str) -> None:
        """The run is given to a worker."""
        run.worker, run.epoch, run.is_held, run.status = worker, run.epoch + 1, True, "running"
        run.store(Entry("run_started", 0, f"{worker}/{run.epoch}"))

    def leave(self, worker: str) -> None:
        """A worker says good-bye: what it holds waits for another one, if it may."""
        for run in self.runs.values():
            if run.is_held and run.worker == worker:
                run.store(Entry("executor_lost", 0))
                run.is_held = False
                if run.status == "canceling":
                    run.end("canceled")
                elif run.epoch - run.failures > MAX_REQUEUES:
                    run.end("failed")

    def attach(self, worker: str, believed: dict[str, int]) -> None:
        """A stream for a worker, which believes that it holds these runs. It is told what is otherwise."""
        self.attached, self.takes_runs = worker, True
        for run in self.runs.values():
            if run.is_held and run.worker == worker:
                if believed.get(run.run_id) != run.epoch:
                    self._tell("assignment", run, run.epoch)
                if run.status == "canceling":
                    self._tell("cancel", run, run.epoch)
        self.believe(believed)

    def believe(self, held: dict[str, int]) -> None:
        """The attached worker says which leases it has."""
        for run_id, epoch in held.items():
            run = self.runs[run_id]
            if not run.is_held or (run.worker, run.epoch) != (self.attached, epoch):
                self.notices.append(("lease_lost", run_id, epoch))

    def waiting(self) -> list[Run]:
        """Runs that the attached worker may get now. Its slots are never all taken."""
        return [run for run in self.runs.values() if self.takes_runs and self._may_start(run)]

    def _may_start(self, run: Run) -> bool:
        if run.is_held or not run.is_going_on:
            return False
        others = [other for other in self.runs.values() if other is not run and not other.is_over]
        if run.wish.key and any(other.is_held and other.wish.key == run.wish.key for other in others):
            return False
        if not self._has_place(run):
            return False
        in_thread = [other for other in others if other.wish.thread == run.wish.thread]
        has_turn = not run.wish.thread_policy or run.epoch > 0
        return has_turn or not any(other.epoch > 0 or other.run_id < run.run_id for other in in_thread)

    def _has_place(self, run: Run) -> bool:
        held = {other.run_id for other in self.runs.values() if other.is_held}
        above = {name for run_id in held for name in self._above(run_id)}
        counting = held - above
        return len(counting) < MAX_RUNNING or run.run_id in above or run.parent in counting

    def _above(self, run_id: str) -> list[str]:
        parent = self.runs[run_id].parent
        return [parent, *self._above(parent)] if parent else []

    def look_after(self) -> None:
        """What the authority does by itself: threads are interrupted, children end, and their parents hear of it."""
        before = None
        while before != (before := [len(run.log) for run in self.runs.values()]):
            for run in self.runs.values():
                parent = self.runs.get(run.parent)
                if self._is_interrupted(run) or (parent and run.ends_with_parent and not parent.is_going_on):
                    self.cancel(run)
                if run.is_over and parent and not run.is_told:
                    run.is_told = True
                    if parent.status == "running":
                        parent.store(Entry("child_finished", 0, f"{run.run_id}/{run.status}"))
                        self._news(parent)

    def _is_interrupted(self, run: Run) -> bool:
        return bool(run.wish.thread) and any(
            newer.wish.thread_policy == "interrupt" and newer.status == "created" and newer.run_id > run.run_id
            for newer in self.runs.values()
            if newer.wish.thread == run.wish.thread
        )

    def _news(self, run: Run) -> None:
        self._tell("news", run, len(run.log))

    def _tell(self, kind: str, run: Run, number: int) -> None:
        if run.is_held and run.worker == self.attached and self.attached:
            self.notices.append((kind, run.run_id, number))
