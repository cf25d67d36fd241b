"""Can a stranger tell by time who has an account? `python -m benchmarks.sign_in_timing [--json FILE]`

A whole stack on loopback, as `oa up` starts it, once for each rule of who may sign up. A stranger, who is always on
another device, begins to sign in as people who have an account and as people who have none, and guesses a wrong code
each time. Whose turn it is, is drawn at random, and each address is used as often as any other. A row is one kind of
call:

- **StartChallenge**, **VerifyChallenge**: of known addresses beside unknown ones.
- **known beside known** (floor): the same of two halves of the known addresses, where there is nothing to be told.
- **a code of nobody** (control): VerifyChallenge for a challenge that there is, beside one that there is not. Those can
  be told by what they do, so the measurement has to notice.

The note has the share of the pairs in which the known address took longer (50 % is chance), and the probability that
chance alone gives such a difference (Mann-Whitney, two-sided). The verdict is that of all rows but the control: they
differ if that probability is below 1 % and the share is 2 % or more away from 50 %. The suite has a test of the same
question that counts the work instead (`services/control/sign_in/tests/test_same_work.py`).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import uvloop

from benchmarks.measure import Figures, report
from benchmarks.people import PATIENCE_S, Site, site
from oa_platform.system.ids import new_id

_MANY = "10000"
_NO_LIMITS = {
    "OA_SIGN_IN_ADDRESS_BURST": _MANY,
    "OA_SIGN_IN_ADDRESS_NETWORK_BURST": _MANY,
    "OA_SIGN_IN_NETWORK_BURST": _MANY,
    "OA_SIGN_IN_GUESS_BURST": _MANY,
    "OA_CALLS_PUBLIC_PER_S": _MANY,
    "OA_CALLS_PUBLIC_BURST": "1000000",
}
RULES: Mapping[str, Mapping[str, str]] = {
    "open": {},
    "domains": {"OA_SIGN_UP": "domains", "OA_SIGN_UP_DOMAINS": "example.org"},
}
"""Settings of sign-up. By the second rule, people without an account may not sign up, and get another mail."""
LEAST_CHANCE = 0.01
LEAST_SHARE = 0.02
"""A difference counts if chance alone would hardly cause it, and if it is large enough to help a guesser."""
_START = "openagents.control.v1.AuthService/StartChallenge"
_VERIFY = "openagents.control.v1.AuthService/VerifyChallenge"


@dataclass(frozen=True)
class Comparison:
    """How the times of two groups differ. `share`: the share of the pairs in which the first took longer."""

    share: float
    chance: float

    @classmethod
    def of(cls, first: Sequence[float], second: Sequence[float]) -> Comparison:
        """Compare by the Mann-Whitney test, in the normal approximation with its correction for ties."""
        n, m = len(first), len(second)
        ranks, ties = _ranks([*first, *second])
        wins = sum(ranks[:n]) - n * (n + 1) / 2
        total = n + m
        variance = n * m / 12 * ((total + 1) - ties / (total * (total - 1)))
        deviation = abs(wins - n * m / 2) / math.sqrt(variance) if variance else 0.0
        return cls(wins / (n * m), math.erfc(deviation / math.sqrt(2)))

    @property
    def differs(self) -> bool:
        """Whether a stranger can tell one group from the other."""
        return self.chance < LEAST_CHANCE and abs(self.share - 0.5) >= LEAST_SHARE


def _ranks(values: Sequence[float]) -> tuple[list[float], float]:
    """The rank of each value, with the mean rank for equal values; and the sum over all ties of t³ - t."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks, ties, begin = [0.0] * len(values), 0.0, 0
    while begin < len(order):
        end = begin
        while end < len(order) and values[order[end]] == values[order[begin]]:
            end += 1
        for index in order[begin:end]:
            ranks[index] = (begin + 1 + end) / 2
        ties += (end - begin) ** 3 - (end - begin)
        begin = end
    return ranks, ties


@dataclass
class Pair:
    """The times of two groups."""

    first: list[float] = field(default_factory=list)
    second: list[float] = field(default_factory=list)

    def figures(self, subject: str, setting: str) -> Figures:
        """The row."""
        found = Comparison.of(self.first, self.second)
        medians = f"{statistics.median(self.first):.2f} and {statistics.median(self.second):.2f} ms"
        note = f"{medians}; longer in {found.share:.1%}, by chance {found.chance:.2g}"
        both = [*self.first, *self.second]
        said = "they differ" if found.differs else "can't be told apart"
        return Figures(subject, setting, len(both), sum(both) / 1000, both, f"{note}: {said}")


class Stranger:
    """Begins to sign in as other people, and guesses codes."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def start(self, email: str) -> tuple[float, str, str]:
        """Start a challenge. Returns how long it took (ms), the challenge's id, and the device."""
        device_id = new_id("dev")
        took, answer = await self._timed(_START, {"email": email, "deviceId": device_id})
        return took, str(answer["challengeId"]), device_id

    async def guess(self, challenge_id: str, device_id: str) -> float:
        """Guess a wrong code. Returns how long it took (ms)."""
        code = {"challengeId": challenge_id, "code": "00000000", "deviceId": device_id}
        took, _ = await self._timed(_VERIFY, code)
        return took

    async def _timed(self, path: str, values: Mapping[str, str]) -> tuple[float, dict[str, object]]:
        """The milliseconds of a call over a kept connection, and its answer, whatever its status."""
        body = json.dumps(values).encode()
        began = time.perf_counter()
        response = await self._http.post(f"/{path}", content=body, headers={"content-type": "application/json"})
        return (time.perf_counter() - began) * 1000, response.json()


async def observed(here: Site, people: int, calls: int, rule: str) -> list[Figures]:
    """Every row of a site."""
    known = [f"person{number}@example.org" for number in range(people)]
    unknown = [f"nobody{number}@another.org" for number in range(people)]
    starts, guesses, floor, control = Pair(), Pair(), Pair(), Pair()
    chance = random.Random(0)
    async with httpx.AsyncClient(base_url=here.stack.urls["control"], trust_env=False, timeout=PATIENCE_S) as http:
        stranger = Stranger(http)
        for email in (*known, *unknown):  # pays the costs of a first call
            await stranger.start(email)
        turns = [(number % people, group) for number in range(calls) for group in (known, unknown)]
        chance.shuffle(turns)
        for number, group in turns:
            took, challenge_id, device_id = await stranger.start(group[number])
            guessed = await stranger.guess(challenge_id, device_id)
            (starts.first if group is known else starts.second).append(took)
            (guesses.first if group is known else guesses.second).append(guessed)
            if group is known:
                (floor.first if number % 2 else floor.second).append(took)
                control.first.append(guessed)
                control.second.append(await stranger.guess(new_id("chl"), device_id))
    setting = f"sign-up: {rule}"
    return [
        starts.figures("StartChallenge", setting),
        guesses.figures("VerifyChallenge", setting),
        floor.figures("known beside known (floor)", setting),
        control.figures("a code of nobody (control)", setting),
    ]


async def measured(people: int, calls: int, rules: Sequence[str] = tuple(RULES)) -> list[Figures]:
    """Every row of every rule."""
    rows: list[Figures] = []
    for rule in rules:
        async with site(control={**_NO_LIMITS, **RULES[rule]}) as here:
            for number in range(people):
                await here.session(number)
            rows += await observed(here, people, calls, rule)
    return rows


def verdict(rows: Sequence[Figures]) -> str:
    """The verdict of all rows except the control."""
    told = [f"{row.subject} ({row.setting})" for row in rows if "(control)" not in row.subject and "differ" in row.note]
    samples = sum(row.events for row in rows if "(" not in row.subject)
    if told:
        return f"A stranger can tell who has an account, by: {', '.join(told)}."
    return f"Known and unknown addresses can't be told apart by time, in {samples:,} calls."


def main() -> None:
    """Measure, and print the table and the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--people", type=int, default=100, help="addresses of each group")
    parser.add_argument("--calls", type=int, default=4000, help="of each kind, for each group and rule; 4500 at most")
    parser.add_argument("--rules", nargs="+", choices=list(RULES), default=list(RULES), help="who may sign up")
    arguments = parser.parse_args()
    rows = uvloop.run(measured(arguments.people, arguments.calls, arguments.rules))
    report("sign_in_timing: can a stranger tell by time who has an account?", rows, arguments.json)
    print(verdict(rows))


if __name__ == "__main__":
    main()
