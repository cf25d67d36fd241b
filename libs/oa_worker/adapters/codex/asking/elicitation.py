"""Requests of Codex's MCP servers to people: to fill in a form, or to open a page. Callers pass in the asking.

People are first asked whether they want to answer at all. Without a yes, nothing is asked, and the server is told
nothing. Codex asks in the same way whether a tool of such a server may be called: that is a form without fields.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from oa_worker.adapters.codex.asking.forms import LEFT_OUT, Field, Misfit, fields_of
from oa_worker.adapters.codex.asking.questions import (
    APPLIED,
    DECLINED,
    EXPIRED,
    FAILED,
    Ask,
    Outcome,
    Params,
    Question,
    Reply,
    approve,
    detail_of,
    refusal,
    title_of,
    together,
)
from oa_worker.adapters.codex.limits import CodexLimits

_DECLINE, _CANCEL = {"action": "decline"}, {"action": "cancel"}
_WHOLE_URL = re.compile(r"https?://[!-~]+")


class _Unanswered(Exception):
    """A field has no answer that fits."""

    def __init__(self, outcome: Outcome, why: str) -> None:
        super().__init__(why)
        self.outcome = outcome


def elicitation(params: Params, limits: CodexLimits) -> Question:
    """Return the question that `mcpServer/elicitation/request` asks."""
    server = str(params.get("serverName") or "an MCP server")
    match params.get("mode"):
        case "form":
            fields = fields_of(params.get("requestedSchema"))
            if fields is not None:
                return _form(params, server, fields, limits.max_answers)
            return refusal("answer_form", _CANCEL, "its form has a field of a kind that is not known here")
        case "url":
            return _page(params, server, limits.max_url_chars)
        case mode:
            return refusal(
                "answer_form", _CANCEL, f"what it asks is of a kind that is not known here: {title_of(str(mode))}"
            )


def _form(params: Params, server: str, fields: list[Field], max_answers: int) -> Question:
    message = str(params.get("message") or "")
    meta = params.get("_meta")
    tool_params = meta.get("tool_params") if isinstance(meta, dict) else None
    names = ", ".join(field.title if field.required else f"{field.title} (not required)" for field in fields)
    detail = detail_of(
        message,
        json.dumps(tool_params, indent=2, ensure_ascii=False) if tool_params else "",
        f"After a yes you are asked for: {names}." if names else "",
    )

    async def decide(ask: Ask) -> Reply:
        outcome = await approve(ask, title_of(f"{server}: {message}"), detail)
        if outcome != APPLIED:
            return _without(outcome)
        try:
            values = await together(_answer(field, server, ask, max_answers) for field in fields)
        except _Unanswered as unanswered:
            return Reply(_CANCEL, unanswered.outcome, str(unanswered))
        given = {field.name: value for field, value in zip(fields, values, strict=True) if value is not LEFT_OUT}
        return Reply({"action": "accept", "content": given}, APPLIED)

    return Question("answer_form" if fields else "approve_mcp", decide, _CANCEL, max(1, len(fields)))


async def _answer(field: Field, server: str, ask: Ask, max_answers: int) -> Any:
    """Ask for the field's value, and return it. Raises _Unanswered."""
    why = ""
    for _ in range(max_answers):
        settled = await ask(field.request(server, why))
        if not settled.answered_by:
            raise _Unanswered(EXPIRED, f"nobody gave {title_of(field.title)} in time")
        try:
            return field.value_of(settled)
        except Misfit as misfit:
            why = str(misfit)
    raise _Unanswered(
        FAILED, f"{title_of(field.title)} was answered {max_answers} times, and not so that it fits. {why}"
    )


def _page(params: Params, server: str, max_chars: int) -> Question:
    """Ask a person to open a page. What they do there is between them and the server, and is in no log."""
    url, message = str(params.get("url")), str(params.get("message") or "")
    if len(url) > max_chars or not _WHOLE_URL.fullmatch(url) or not (host := _host(url)):
        return refusal("open_page", _CANCEL, "it asks people to open what is no plain http(s) address, or too long")
    detail = detail_of(
        url, message, f"Open it yourself, if you trust {host} with what it asks. A yes tells {server} that you did."
    )

    async def decide(ask: Ask) -> Reply:
        outcome = await approve(ask, title_of(f"{server}: open a page of {host}", end="?"), detail)
        return Reply({"action": "accept"}, APPLIED) if outcome == APPLIED else _without(outcome)

    return Question("open_page", decide, _CANCEL)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _without(outcome: Outcome) -> Reply:
    told: Mapping[str, Any] = _DECLINE if outcome == DECLINED else _CANCEL
    return Reply(told, outcome)
