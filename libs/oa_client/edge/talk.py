"""The conversation of people and a run: inputs, requests and answers."""

from __future__ import annotations

from google.protobuf.message import Message

from oa_client.core import wire
from oa_client.core.models import AskedRequest
from oa_client.edge.calls import ATTEMPTS, AccessTokens, Edge, M
from oa_client.edge.new_ids import new_idempotency_key
from openagents.runtime.v1 import run_service_pb2

_RUNS = "openagents.runtime.v1.RunService"


class Talk:
    """The conversation with the runs of the caller's org. Every method may raise Refusal."""

    def __init__(self, edge: Edge, tokens: AccessTokens) -> None:
        self._edge = edge
        self._tokens = tokens

    async def _call(self, method: str, request: Message, response: type[M]) -> M:
        return await self._edge.call(method, request, response, self._tokens, attempts=ATTEMPTS)

    async def send(self, run_id: str, input_json: str, idempotency_key: str = "") -> int:
        """Send an input, a JSON text, to a run, and return its seq. The key makes a repeated call safe.

        Raises Refusal `not_found`, `invalid_transition` for a run that has ended or is to end, `idempotency_conflict`.
        """
        request = run_service_pb2.SendInputRequest(
            run_id=run_id, idempotency_key=idempotency_key or new_idempotency_key(), input_json=input_json
        )
        return (await self._call(f"{_RUNS}/SendInput", request, run_service_pb2.SendInputResponse)).seq

    async def requests(self, run_id: str) -> list[AskedRequest]:
        """Return the requests of a run, in order. Raises Refusal `not_found`."""
        request = run_service_pb2.ListRequestsRequest(run_id=run_id)
        answer = await self._call(f"{_RUNS}/ListRequests", request, run_service_pb2.ListRequestsResponse)
        return [wire.asked_request(one) for one in answer.requests]

    async def answer(self, run_id: str, request_id: str, *, option: str = "", text: str = "") -> int:
        """Answer a request of a run with an option or a text, and return the seq of the answer.

        Raises Refusal `request_settled` if another answer came first, `invalid_value` for one that does not fit.
        """
        request = run_service_pb2.AnswerRequestRequest(run_id=run_id, request_id=request_id, option=option, text=text)
        return (await self._call(f"{_RUNS}/AnswerRequest", request, run_service_pb2.AnswerRequestResponse)).seq
