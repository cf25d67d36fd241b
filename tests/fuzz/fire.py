"""A method under fire: every answer is looked at, and afterwards what the stack stored, counted and logged."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

from oa_base.catalogue import is_reason
from oa_platform.system.ids import new_id
from tests.fuzz.doors import Outcome
from tests.fuzz.mutate import MARK, Json, Mutation, replaced
from tests.fuzz.scene import Scene
from tests.fuzz.watch import SERVICES, defects_in, refusals_in

_SHOWN = 12
_WAIT_S = 60.0
_ID = re.compile(r"\b(run|sch|ses|sva|apk|usr|org|wrk|inv)_[0-9A-HJKMNP-TV-Z]{26}\b")
FOREIGN = frozenset({"not_found", "owner_mismatch", "forbidden_topic", "stale_epoch"})
"""What somebody hears of what is not theirs."""
NOBODY = "00000000000000000000000000"


class Tally:
    """What came of the shots, and what was wrong with it."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self.taken = 0
        self.problems: list[str] = []

    @property
    def shots(self) -> int:
        """How many there were."""
        return self.taken + self.refused.total()

    def look(self, what: object, outcome: Outcome, *, may_pass: bool = False, code: str = "") -> bool:
        """Note an answer; whether it is a refusal as it should be. `code`: what the catalogue has, if not gRPC's."""
        refusal = outcome.refusal
        if refusal is None:
            self.taken += 1
            if not may_pass:
                self.problems.append(f"{what}: was taken")
            return False
        self.refused[refusal.reason] += 1
        expected = code or refusal.info.grpc_code
        if outcome.is_defect or not is_reason(refusal.reason) or outcome.status != expected:
            self.problems.append(f"{what}: {outcome.status} {refusal!r}")
        if MARK in outcome.text.lower() or NOBODY in outcome.text:
            self.problems.append(f"{what}: echoes what was sent: {outcome.text}")
        return True

    def look_closer(self, mutation: Mutation, outcome: Outcome, *, code: str = "") -> None:
        """As `look`, with the reason and the field that the mutation leads to."""
        if not self.look(mutation, outcome, may_pass=mutation.may_pass, code=code) or mutation.may_pass:
            return
        assert outcome.refusal is not None
        reason, field = outcome.refusal.reason, outcome.refusal.field
        if reason not in mutation.reasons:
            self.problems.append(f"{mutation}: refused for {reason}, not for {sorted(mutation.reasons)}")
        if field != mutation.field:
            self.problems.append(f"{mutation}: the refusal names the field {field!r}")

    def alike(self, what: object, theirs: Outcome, nobodys: Outcome) -> None:
        """What is somebody else's has to be refused in the words for what is not there."""
        said = [_ID.sub("ID", _said(outcome)) for outcome in (theirs, nobodys)]
        if said[0] != said[1]:
            self.problems.append(f"{what}: {said[0]} for somebody else's, {said[1]} for nobody's")

    def settle(self) -> None:
        """Fail with what was wrong."""
        shown = "\n".join(self.problems[:_SHOWN])
        assert not self.problems, f"{len(self.problems)} of {self.shots} shots:\n{shown}"


def _said(outcome: Outcome) -> str:
    refusal = outcome.refusal
    details = f"{refusal} {refusal.metadata} {refusal.retry_after_ms}" if refusal else ""
    return f"{outcome.status} {details}"


@asynccontextmanager
async def under_fire(scene: Scene, door: str, *, moves: bool = False) -> AsyncIterator[Tally]:
    """A time in which nothing may be stored, and every refusal at `door` is counted and logged there.

    With `moves` some requests may be taken; then what is stored is not compared.
    """
    before = {} if moves else await scene.watch.settled()
    counted = await scene.watch.refusals(door)
    marks = {service: scene.watch.log_mark(service) for service in SERVICES}
    tally = Tally()
    yield tally
    after = {} if moves else await scene.watch.settled()
    tally.problems += [f"{table} changed" for table in before if before[table] != after.get(table)]
    for service, mark in marks.items():
        tally.problems += [f"log of {service}: {line}" for line in defects_in(scene.watch.log_since(service, mark))]
    grown = await scene.watch.refusals(door)
    grown.subtract(counted)
    tally.problems += [f"counted too few: {reason}" for reason in _short(tally.refused, grown)]
    logged = await _logged(scene, door, marks[door], tally.refused)
    tally.problems += [f"logged too few: {reason}" for reason in _short(tally.refused, logged)]
    tally.settle()


def _short(refused: Counter[str], seen: Counter[str]) -> list[str]:
    return [f"{reason} {seen[reason]} of {count}" for reason, count in refused.items() if seen[reason] < count]


async def _logged(scene: Scene, door: str, mark: int, refused: Counter[str]) -> Counter[str]:
    """Lines are written after the answer is: they are waited for."""
    found: Counter[str] = Counter()
    for _ in range(int(_WAIT_S / 0.05)):
        found = refusals_in(scene.watch.log_since(door, mark))
        if not _short(refused, found):
            break
        await asyncio.sleep(0.05)
    return found


def fresh(document: Json) -> Json:
    """The request with another idempotency key, where it has one: so that it is not held for a repeated one; so is the
    number of a child. A name beside the key is one that nothing else may have."""
    if isinstance(document, dict) and "child_id" in document:
        return {**document, "child_id": new_id("key").lower()}
    if not isinstance(document, dict) or "idempotency_key" not in document:
        return document
    name = {"name": new_id("key").lower()} if "name" in document else {}
    return {**document, "idempotency_key": new_id("key"), **name}


def foreign(good: Json, owned: Callable[[str], str]) -> Iterator[tuple[Mutation, Mutation]]:
    """For each id in the good request: the request with somebody else's id (`owned`: prefix -> id), and nobody's."""
    for keys, text in _texts(good, ()):
        match = _ID.search(text)
        if match is None:
            continue
        theirs, nobodys = (
            Mutation(
                f"{whose} id at {'.'.join(map(str, keys))}",
                replaced(good, keys, text.replace(match[0], other)),
                FOREIGN,
            )
            for whose, other in (("bob's", owned(match[1])), ("nobody's", f"{match[1]}_{NOBODY}"))
        )
        yield theirs, nobodys


def _texts(value: Json, keys: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    elif isinstance(value, str):
        yield keys, value
    for key, each in inner:
        yield from _texts(each, (*keys, key))
