"""The OpenAPI document says of every method what the edge really takes and answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from jsonschema import Draft202012Validator

from oa_base.refusal import Refusal
from oa_wire.rules import check_rules
from services.control.edge.door.codec import Codec, decode, encode
from services.control.edge.door.methods import Method, open_methods
from services.control.edge.door.openapi.comments import comments
from services.control.edge.door.openapi.document import openapi
from services.control.policy.domain import Public
from services.control.tests.harness import Control, reason_of

DOCUMENT = openapi(open_methods().values(), comments())


def validator(name: str) -> Draft202012Validator:
    """Checks JSON against a message's schema."""
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]})


def test_every_method_is_in_it_with_its_verbs_and_its_token() -> None:
    methods = open_methods()
    assert DOCUMENT["paths"].keys() == {f"/{name}" for name in methods}
    for name, method in methods.items():
        path = DOCUMENT["paths"][f"/{name}"]
        assert path.keys() == ({"get", "post"} if method.reads_only else {"post"})
        assert path["post"]["security"] == ([] if isinstance(method.access, Public) else [{"access_token": []}])
    operations = [one["operationId"] for path in DOCUMENT["paths"].values() for one in path.values()]
    assert len(operations) == len(set(operations))


def test_every_schema_is_one_and_every_reference_leads_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    parts = json.dumps(DOCUMENT).split('"$ref": "#/components/schemas/')[1:]
    assert {part.partition('"')[0] for part in parts} <= schemas.keys()


def test_every_service_method_message_and_field_is_described() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    described = {
        **{tag["name"]: tag for tag in DOCUMENT["tags"]},
        **{one["operationId"]: one for path in DOCUMENT["paths"].values() for one in path.values()},
        **schemas,
        **{
            f"{name}.{field}": one
            for name, schema in schemas.items()
            if name != "Error"
            for field, one in schema["properties"].items()
        },
    }
    assert [name for name, one in described.items() if name != "Error" and not one.get("description")] == []
    used = {tag for path in DOCUMENT["paths"].values() for one in path.values() for tag in one["tags"]}
    assert used == {tag["name"] for tag in DOCUMENT["tags"]}


def test_a_description_is_the_comment_and_says_who_may_call_and_what_values_mean() -> None:
    path = DOCUMENT["paths"]["/openagents.runtime.v1.RunService/CancelRun"]
    said = "Asks for a run to end. Asking again changes nothing.\n\nNeeds the scope runs.write."
    assert path["post"]["description"] == said
    status = DOCUMENT["components"]["schemas"]["openagents.runtime.v1.Run"]["properties"]["status"]
    assert "\n- `RUN_STATUS_CANCELED`: " in status["description"]


def test_a_name_of_a_well_known_type_is_in_its_list() -> None:
    assert not [name for name in DOCUMENT["components"]["schemas"] if name.startswith("google.")]


@pytest.mark.parametrize("method", open_methods().values(), ids=lambda method: method.name.rpartition(".")[2])
def test_what_the_edge_writes_is_what_the_schema_says(method: Method) -> None:
    """Messages in which every field is set, apart from texts that have a pattern of their own."""
    for message_type in (method.request_type, method.response_type):
        name = message_type.DESCRIPTOR.full_name
        document = json.loads(encode(Codec.JSON, filled(message_type.DESCRIPTOR, 4)))
        wrong = [error for error in validator(name).iter_errors(document) if error.validator in ("type", "enum")]
        assert not wrong, (name, wrong[0].message)
        known = DOCUMENT["components"]["schemas"][name]["properties"]
        assert document.keys() <= known.keys()


def filled(descriptor: Any, depth: int) -> Any:
    """A message with every field set, of each oneof the last."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field.message_type is not None and field.message_type.full_name.startswith("google.protobuf."):
            continue
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if is_map:
            continue
        if field.message_type is not None:
            if depth:
                inner = filled(field.message_type, depth - 1)
                holder = getattr(message, field.name)
                holder.append(inner) if field.is_repeated else holder.CopyFrom(inner)
            continue
        value = _sample(field)
        getattr(message, field.name).append(value) if field.is_repeated else setattr(message, field.name, value)
    return message


def _sample(field: FieldDescriptor) -> object:
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    if field.type == FieldDescriptor.TYPE_BYTES:
        return b"\xff\x00"
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return "text"
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return True
    return 7.5 if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT) else 7


@pytest.mark.parametrize("path", ["/openapi.json", "/.well-known/jwks.json"])
async def test_who_has_a_document_is_not_sent_it_again(control: Control, path: str) -> None:
    first = await control.http.get(path)
    tag, kept = first.headers["etag"], first.headers["cache-control"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await control.http.get(path, headers={"if-none-match": known})
        assert (again.status_code, again.content) == (304, b""), known
        assert (again.headers["etag"], again.headers["cache-control"]) == (tag, kept)
    other = await control.http.get(path, headers={"if-none-match": '"other"'})
    assert (other.status_code, other.content) == (200, first.content)


async def test_it_is_served_and_real_answers_fit_it(control: Control) -> None:
    answer = await control.http.get("/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == DOCUMENT
    refused = await control.http.post("/openapi.json")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
    validator("Error").validate(refused.json())
    assert reason_of(refused) == "method_not_allowed"

    token = await control.access_token()
    run = {"idempotencyKey": "k1", "spec": {"adapter": "exec", "exec": {"argv": ["git", "log"]}}}
    for name, body in (
        ("control.SessionService/GetCaller", {}),
        ("control.SessionService/ListSessions", {}),
        ("control.ServiceAccountService/CreateServiceAccount", {"name": "script"}),
        ("runtime.RunService/CreateRun", run),
    ):
        method = open_methods()[f"openagents.{name.replace('.', '.v1.', 1)}"]
        validator(method.request_type.DESCRIPTOR.full_name).validate(body)
        validator(method.response_type.DESCRIPTOR.full_name).validate(await control.ok(name, body, token))


def _asked() -> dict[str, Any]:
    """Full name -> descriptor, of every message that stands in a request."""
    found: dict[str, Any] = {}
    waiting: list[Any] = [method.request_type.DESCRIPTOR for method in open_methods().values()]
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name not in found and descriptor.full_name in DOCUMENT["components"]["schemas"]:
            found[descriptor.full_name] = descriptor
            waiting += [field.message_type for field in descriptor.fields if field.message_type is not None]
    return found


@pytest.mark.parametrize("name", sorted(_asked()), ids=lambda name: name.rpartition(".")[2])
def test_the_schema_takes_an_empty_message_where_the_rules_do(name: str) -> None:
    try:
        check_rules(GetMessageClass(_asked()[name])())
        is_taken = True
    except Refusal:
        is_taken = False
    assert validator(name).is_valid({}) == is_taken


EXEC = {"argv": ["true"]}
REFUSED = [
    ("control.v1.StartChallengeRequest", {"email": "ada@example.org"}),
    ("control.v1.StartChallengeRequest", {"email": 7, "deviceId": "dev_01JD8V0000000000000000000A"}),
    ("control.v1.StartChallengeRequest", {"email": "ada@example.org", "deviceId": "dev_1"}),
    ("control.v1.StartChallengeRequest", {"email": "", "deviceId": "dev_01JD8V0000000000000000000A"}),
    ("control.v1.CreateOrgRequest", {"name": "Acme", "colour": "red"}),
    ("control.v1.ExchangeKeyRequest", {"apiKey": "oak_x", "use": "TOKEN_USE_UNSPECIFIED"}),
    ("control.v1.CreateServiceAccountRequest", {"name": "x", "ttlSeconds": 2**32}),
    ("control.v1.ReadAuditLogRequest", {"afterSequence": "-1"}),
    ("control.v1.ReadAuditLogRequest", {"afterSequence": "01"}),
    ("control.v1.ReadAuditLogRequest", {"afterSequence": 2**53}),
    ("control.v1.MintSyncTokenRequest", {"surface": "cli", "topics": []}),
    ("runtime.v1.GetConsistencyProofRequest", {"oldSize": "0", "newSize": "2"}),
    ("runtime.v1.GetConsistencyProofRequest", {"oldSize": 0, "newSize": 2}),
    ("runtime.v1.RunSpec", {"adapter": "exec"}),
    ("runtime.v1.RunSpec", {"adapter": "exec", "exec": EXEC, "prompt": {"text": "x"}}),
    ("runtime.v1.RunSpec", {"adapter": "exec", "exec": {"argv": []}}),
    ("runtime.v1.RunSpec", {"adapter": "exec", "exec": EXEC | {"terminal": {"columns": 80}}}),
    ("runtime.v1.RunSpec", {"adapter": "exec", "exec": EXEC, "queue": {"retry": {"initialDelayMs": "1"}}}),
]


@pytest.mark.parametrize(("name", "document"), REFUSED, ids=str)
def test_what_the_contract_refuses_the_schema_refuses(name: str, document: Any) -> None:
    assert not validator(f"openagents.{name}").is_valid(document)
    message = GetMessageClass(_asked()[f"openagents.{name}"])()
    with pytest.raises(Refusal):
        check_rules(decode(Codec.JSON, json.dumps(document).encode(), type(message)))


def test_an_answer_may_have_members_that_the_document_does_not_know() -> None:
    run = {"runId": "run_01JD8V0000000000000000000A", "spec": {"adapter": "exec", "exec": EXEC, "later": 1}, "new": 1}
    assert validator("openagents.runtime.v1.GetRunResponse").is_valid({"run": run})
