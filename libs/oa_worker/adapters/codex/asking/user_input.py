"""Codex's own questions: each becomes a choice, or a request for a text. Callers pass in the asking.

Codex is told the answers when all questions are settled. A question that nobody answered is left out, and the turn
continues.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from oa_worker.adapters.codex.asking.questions import (
    APPLIED,
    EXPIRED,
    MAX_OPTIONS,
    Ask,
    Params,
    Question,
    Reply,
    asked_for,
    detail_of,
    dicts,
    refusal,
    title_of,
    together,
)

_ACTION = "ask_user"
_OTHER = "0"
_NOTHING: dict[str, Any] = {"answers": {}}


@dataclass(frozen=True)
class _Asked:
    """One question. `labels`: option's id -> what Codex calls it; empty for a question that takes any text."""

    id: str
    title: str
    detail: str
    labels: dict[str, str]
    may_be_other: bool

    @classmethod
    def of(cls, told: Params) -> _Asked:
        words = str(told.get("question") or told.get("header") or "").strip()
        options = dicts(told.get("options"))
        labels = {str(number): str(option.get("label") or "") for number, option in enumerate(options, start=1)}
        described = "\n".join(f"{option.get('label')}: {option.get('description') or ''}" for option in options)
        title = title_of(words) or "Codex has a question"
        detail = detail_of(words if title != words else "", described)
        may_be_other = bool(told.get("isOther"))
        if len(labels) + may_be_other > MAX_OPTIONS:
            labels = {}  # they are in the detail, and any text is accepted
        return cls(str(told.get("id")), title, detail, labels, may_be_other)

    async def answer(self, ask: Ask) -> str | None:
        """Return the answer, in Codex's words or somebody's; None if nobody answers."""
        if self.labels:
            shown = self.labels | ({_OTHER: "Something else"} if self.may_be_other else {})
            settled = await ask(asked_for(self.title, self.detail, shown))
            if settled.option != _OTHER:
                return self.labels.get(settled.option)
        settled = await ask(asked_for(self.title, self.detail, {}))
        return settled.text if settled.answered_by else None


def user_input(params: Params) -> Question:
    """Return the question that `item/tool/requestUserInput` asks."""
    told = dicts(params.get("questions"))
    if not told:
        return refusal(_ACTION, _NOTHING, "there is no question in it")
    if any(question.get("isSecret") for question in told):
        why = "it asks for a secret, and an answer would stand in the run's log: set it up on the worker's machine"
        return refusal(_ACTION, _NOTHING, why)
    questions = [_Asked.of(question) for question in told]

    async def decide(ask: Ask) -> Reply:
        answers = await together(question.answer(ask) for question in questions)
        given = {
            question.id: {"answers": [answer]}
            for question, answer in zip(questions, answers, strict=True)
            if answer is not None
        }
        if missing := answers.count(None):
            return Reply({"answers": given}, EXPIRED, f"{missing} of {len(answers)} questions had no answer in time")
        return Reply({"answers": given}, APPLIED)

    return Question(_ACTION, decide, _NOTHING, len(questions))
