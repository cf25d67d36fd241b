"""What a stranger is told of an address does not depend on whether somebody has an account with it."""

from __future__ import annotations

from services.control.tests.harness import Control, new_id

START = "control.AuthService/StartChallenge"
VERIFY = "control.AuthService/VerifyChallenge"


async def test_nobody_learns_who_has_an_account(control: Control) -> None:
    await control.sign_in("ada@example.org")
    answers = []
    for email in ("ada@example.org", "nobody@example.org"):
        device = new_id("dev")
        started = await control.call(START, {"email": email, "deviceId": device})
        again = await control.call(START, {"email": email, "deviceId": device})
        guess = {"challengeId": started.json()["challengeId"], "code": "00000000", "deviceId": device}
        wrong = await control.call(VERIFY, guess)
        answers.append(
            [(each.status_code, _shape(each.json()), each.headers.keys()) for each in (started, again, wrong)]
        )
    assert answers[0] == answers[1]


def _shape(answer: dict[str, object]) -> object:
    """An answer without what is new in each: ids and times."""
    return answer.get("message") or sorted(answer)
