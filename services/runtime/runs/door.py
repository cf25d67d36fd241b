"""RunService."""

from __future__ import annotations

from typing import Any

from oa_khala.topics import run_events
from oa_platform.auth.identity import current_principal
from oa_runlog import wire
from oa_runlog.events import RequestAnswered, RequestExpired
from openagents.runtime.v1 import run_pb2, run_service_pb2
from openagents.runtime.v1.run_service_pb2_grpc import RunServiceServicer
from services.runtime.log.domain.records import RunRecord
from services.runtime.requests.app import Requests
from services.runtime.requests.domain import Request
from services.runtime.runs.app import Runs


def run_message(run: RunRecord) -> run_pb2.Run:
    """The message for a run."""
    return wire.run_to_wire(run.state, run.spec, run_events(run.state.run_id))


def request_message(request: Request) -> run_service_pb2.Request:
    """The message for a request."""
    message = run_service_pb2.Request(opened=wire.body_to_wire(request.opened).request_opened)
    message.open_time.FromNanoseconds(request.open_ns)
    match request.settled:
        case RequestAnswered() as answered:
            message.answered.CopyFrom(wire.body_to_wire(answered).request_answered)
        case RequestExpired() as expired:
            message.expired.CopyFrom(wire.body_to_wire(expired).request_expired)
    return message


class RunApi(RunServiceServicer):
    """Commands on runs."""

    def __init__(self, runs: Runs, requests: Requests) -> None:
        self._runs = runs
        self._requests = requests

    async def CreateRun(
        self, request: run_service_pb2.CreateRunRequest, context: Any
    ) -> run_service_pb2.CreateRunResponse:
        """Create a run."""
        spec = wire.asked_spec_from_wire(request.spec, path="spec.")
        run, existed = await self._runs.create(current_principal(), request.idempotency_key, spec)
        return run_service_pb2.CreateRunResponse(run=run_message(run), already_created=existed)

    async def GetRun(self, request: run_service_pb2.GetRunRequest, context: Any) -> run_service_pb2.GetRunResponse:
        """Show a run."""
        run = await self._runs.get(current_principal(), request.run_id)
        return run_service_pb2.GetRunResponse(run=run_message(run))

    async def SendInput(
        self, request: run_service_pb2.SendInputRequest, context: Any
    ) -> run_service_pb2.SendInputResponse:
        """Send input to a run."""
        text = wire.asked_json_text(wire.json_text(request.input_json, "input_json"), "input_json")
        applied = await self._runs.send(current_principal(), request.run_id, request.idempotency_key, text)
        return run_service_pb2.SendInputResponse(seq=applied.first_seq, already_sent=applied.repeated)

    async def ListRequests(
        self, request: run_service_pb2.ListRequestsRequest, context: Any
    ) -> run_service_pb2.ListRequestsResponse:
        """List the requests of a run."""
        found = await self._requests.of(current_principal(), request.run_id)
        return run_service_pb2.ListRequestsResponse(requests=[request_message(one) for one in found])

    async def AnswerRequest(
        self, request: run_service_pb2.AnswerRequestRequest, context: Any
    ) -> run_service_pb2.AnswerRequestResponse:
        """Answer a request of a run."""
        said = request.option, request.text
        applied = await self._requests.answer(current_principal(), request.run_id, request.request_id, *said)
        return run_service_pb2.AnswerRequestResponse(seq=applied.first_seq, already_answered=applied.repeated)

    async def CancelRun(
        self, request: run_service_pb2.CancelRunRequest, context: Any
    ) -> run_service_pb2.CancelRunResponse:
        """Ask for a run to end."""
        run = await self._runs.cancel(current_principal(), request.run_id, request.reason)
        return run_service_pb2.CancelRunResponse(run=run_message(run))
