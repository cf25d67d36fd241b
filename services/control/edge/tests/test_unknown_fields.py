"""A field that the contract doesn't have is refused, in JSON as in protobuf, whoever answers the call."""

from __future__ import annotations

import base64

from openagents.runtime.v1 import event_pb2, run_service_pb2
from services.control.tests.harness import Control, field_of, reason_of

START = "control.AuthService/StartChallenge"
CREATE_RUN = "runtime.RunService/CreateRun"
RUN = {"idempotencyKey": "k1", "spec": {"adapter": "exec", "exec": {"argv": ["git", "log"]}}}
GOOD = {"email": "ada@example.org", "deviceId": "dev_01JD8V0000000000000000000A"}
SECRET = "zq9x"
UNKNOWN = b"\xfa\x3f\x04" + SECRET.encode()
IN_SPEC = bytes([run_service_pb2.CreateRunRequest.DESCRIPTOR.fields_by_name["spec"].number << 3 | 2, len(UNKNOWN)])
UNKNOWN_FIELDS = [
    (START, GOOD | {SECRET: 1}, UNKNOWN, ""),
    (CREATE_RUN, RUN | {SECRET: 1}, UNKNOWN, ""),
    (CREATE_RUN, RUN | {"spec": {SECRET: 1}}, IN_SPEC + UNKNOWN, "spec"),
]


async def test_an_unknown_field_is_refused_in_json_as_in_protobuf(control: Control) -> None:
    token = await control.access_token()
    for method, in_json, in_protobuf, field in UNKNOWN_FIELDS:
        for body, media in ((in_json, "application/json"), (in_protobuf, "application/proto")):
            response = await control.call(method, body, token, content_type=media)
            found = (response.status_code, reason_of(response), field_of(response))
            assert found == (400, "malformed_message", field), (method, media)
            assert SECRET not in response.text
    assert not control.runtime.runs


async def test_an_unknown_field_is_refused_in_a_query_too(control: Control) -> None:
    token = await control.access_token()
    unknown = base64.urlsafe_b64encode(UNKNOWN).decode()
    paths = ("/openagents.control.v1.SessionService/GetCaller", "/openagents.runtime.v1.RunService/GetRun")
    for path in paths:
        for query in ("encoding=json&message=%7B%22zq9x%22%3A1%7D", f"encoding=proto&base64=1&message={unknown}"):
            answer = await control.http.get(f"{path}?{query}", headers={"authorization": f"Bearer {token}"})
            assert (answer.status_code, reason_of(answer)) == (400, "malformed_message"), (path, query)
            assert SECRET not in answer.text


async def test_protobuf_goes_through(control: Control) -> None:
    spec = event_pb2.RunSpec(adapter="exec", exec=event_pb2.ExecSpec(argv=["true"]))
    body = run_service_pb2.CreateRunRequest(idempotency_key="k", spec=spec).SerializeToString()
    token = await control.access_token()
    response = await control.call(CREATE_RUN, body, token, content_type="application/proto")
    assert run_service_pb2.CreateRunResponse.FromString(response.content).run.spec == spec
