"""Who may call what: the policies come from the contracts, and every other identity than the needed one is refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import grpc.aio
import pytest

from oa_base.identity import PrincipalKind
from oa_base.refusal import Refusal
from oa_platform.auth.authenticator import Authenticator, MethodPolicy, Need, policy_of
from oa_platform.auth.identity import (
    Caller,
    PersonCaller,
    ServiceCaller,
    WorkerCaller,
    current_caller,
    current_principal,
    set_caller,
)
from oa_platform.config.shared import GrpcServerSettings, token_hash
from oa_platform.tests.grpc_sample import SERVER, TOKENS, World, refused
from oa_testing.waiting import PATIENCE_S, eventually
from openagents.runtime.v1 import (
    log_service_pb2,
    log_service_pb2_grpc,
    receipt_service_pb2,
    receipt_service_pb2_grpc,
    run_service_pb2,
    run_service_pb2_grpc,
    worker_service_pb2,
    worker_service_pb2_grpc,
)

RUN_ID = f"run_{'0' * 26}"


@pytest.mark.parametrize(
    ("method", "policy"),
    [
        ("/openagents.runtime.v1.RunService/CreateRun", MethodPolicy(Need.PRINCIPAL, "runs.write")),
        ("/openagents.runtime.v1.ReceiptService/ListReceiptKeys", MethodPolicy(Need.PRINCIPAL)),
        ("/openagents.runtime.v1.WorkerService/Attach", MethodPolicy(Need.WORKER)),
        (
            "/openagents.runtime.v1.LogService/TailLog",
            MethodPolicy(
                Need.SERVICE, callers=frozenset({"projector"}), method="openagents.runtime.v1.LogService/TailLog"
            ),
        ),
        ("/openagents.control.v1.AuthService/StartChallenge", MethodPolicy(Need.SERVICE)),
        ("/grpc.health.v1.Health/Check", MethodPolicy(Need.NOTHING)),
        ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", MethodPolicy(Need.SERVICE)),
        ("/nobody.knows/This", MethodPolicy(Need.SERVICE)),
        ("", MethodPolicy(Need.SERVICE)),
    ],
)
def test_each_method_has_its_policy(method: str, policy: MethodPolicy) -> None:
    assert policy_of(method) == policy


class Api:
    """One method of each of four services; notes who called."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []

    async def GetRun(self, request: Any, context: Any) -> run_service_pb2.GetRunResponse:
        self.callers.append(current_caller())
        return run_service_pb2.GetRunResponse()

    async def ListReceiptKeys(self, request: Any, context: Any) -> receipt_service_pb2.ListReceiptKeysResponse:
        self.callers.append(current_caller())
        return receipt_service_pb2.ListReceiptKeysResponse()

    async def DescribeLog(self, request: Any, context: Any) -> log_service_pb2.DescribeLogResponse:
        self.callers.append(current_caller())
        return log_service_pb2.DescribeLogResponse()

    async def Attach(self, request_iterator: Any, context: Any) -> AsyncIterator[worker_service_pb2.AttachResponse]:
        self.callers.append(current_caller())
        async for _ in request_iterator:
            yield worker_service_pb2.AttachResponse()

    def __getattr__(self, name: str) -> Any:
        """The other methods of these services, which nobody calls here."""
        return None


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
async def world(api: Api) -> AsyncIterator[World]:
    async with serving(api) as made:
        yield made


@asynccontextmanager
async def serving(api: Api, settings: GrpcServerSettings = SERVER) -> AsyncIterator[World]:
    made = World(settings)
    for add in (
        run_service_pb2_grpc.add_RunServiceServicer_to_server,
        log_service_pb2_grpc.add_LogServiceServicer_to_server,
        worker_service_pb2_grpc.add_WorkerServiceServicer_to_server,
        receipt_service_pb2_grpc.add_ReceiptServiceServicer_to_server,
    ):
        made.server.register(cast("Any", add), api)
    async with made.server:
        yield made


async def _try(world: World, method: str, metadata: dict[str, str], *more: tuple[str, str]) -> str:
    """ "ok", or the reason of the refusal."""
    async with world.bare_channel() as channel:
        pairs = (*metadata.items(), *more)
        calls: dict[str, Any] = {
            "GetRun": lambda: run_service_pb2_grpc.RunServiceStub(channel).GetRun(
                run_service_pb2.GetRunRequest(run_id=RUN_ID), metadata=pairs
            ),
            "ListReceiptKeys": lambda: receipt_service_pb2_grpc.ReceiptServiceStub(channel).ListReceiptKeys(
                receipt_service_pb2.ListReceiptKeysRequest(), metadata=pairs
            ),
            "DescribeLog": lambda: log_service_pb2_grpc.LogServiceStub(channel).DescribeLog(
                log_service_pb2.DescribeLogRequest(), metadata=pairs
            ),
            "Attach": lambda: worker_service_pb2_grpc.WorkerServiceStub(channel).Attach(iter(()), metadata=pairs),
        }
        call = calls[method]()
        try:
            if method == "Attach":
                async for _ in call:
                    pass
            else:
                await call
        except grpc.aio.AioRpcError:
            return (await refused(calls[method]())).reason
    return "ok"


async def test_of_several_identities_none_is_picked(world: World) -> None:
    control = {"x-oa-service-token": TOKENS["control"]}
    principal = {"x-oa-principal": world.principal_token()}
    worker = {"authorization": f"Bearer {world.worker_token()}"}
    for other in (*worker.items(), ("authorization", "Basic abc")):
        assert await _try(world, "Attach", worker, other) == "invalid_authorization_scheme"
        assert await _try(world, "Attach", dict([other]), *worker.items()) == "invalid_authorization_scheme"
    assert await _try(world, "GetRun", control | principal, *control.items()) == "service_not_accepted"
    assert await _try(world, "GetRun", control | principal, *principal.items()) == "invalid_token"


class SlowApi(Api):
    """Holds the calls of one org until told otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.release = asyncio.Event()

    async def GetRun(self, request: Any, context: Any) -> run_service_pb2.GetRunResponse:
        answer = await super().GetRun(request, context)
        if current_principal().org_id == "org_1":
            await self.release.wait()
        return answer


async def test_no_org_takes_all_calls_of_a_server() -> None:
    api = SlowApi()
    async with serving(api, replace(SERVER, max_calls=18)) as world:
        control = {"x-oa-service-token": TOKENS["control"]}
        one, other = (control | {"x-oa-principal": world.principal_token(org_id=org)} for org in ("org_1", "org_2"))
        # Eight times as many as are free.
        held = [asyncio.create_task(_try(world, "GetRun", one)) for _ in range(16)]
        await eventually(lambda: len(api.callers) == 16)
        async with asyncio.timeout(PATIENCE_S):
            assert await _try(world, "GetRun", one) == "overloaded"
        assert await _try(world, "GetRun", other) == "ok"
        api.release.set()
        assert await asyncio.gather(*held) == ["ok"] * 16
        assert await _try(world, "GetRun", one) == "ok"


async def test_each_identity_opens_its_own_methods_and_no_other(world: World) -> None:
    control, gateway, projector = (
        {"x-oa-service-token": TOKENS[name]} for name in ("control", "khala_gateway", "projector")
    )
    principal = {"x-oa-principal": world.principal_token()}
    worker = {"authorization": f"Bearer {world.worker_token()}"}
    cases: list[tuple[dict[str, str], dict[str, str]]] = [
        (
            {},
            {
                "GetRun": "service_not_accepted",
                "DescribeLog": "service_not_accepted",
                "Attach": "missing_authorization",
            },
        ),
        (projector, {"GetRun": "service_not_accepted", "DescribeLog": "ok", "Attach": "missing_authorization"}),
        (gateway, {"DescribeLog": "caller_not_allowed"}),
        (gateway | principal, {"GetRun": "service_not_accepted", "ListReceiptKeys": "service_not_accepted"}),
        (principal, {"GetRun": "service_not_accepted", "Attach": "missing_authorization"}),
        (control, {"GetRun": "missing_authorization", "DescribeLog": "caller_not_allowed"}),
        (control | principal, {"GetRun": "ok", "ListReceiptKeys": "ok"}),
        (worker, {"Attach": "ok", "GetRun": "service_not_accepted", "DescribeLog": "service_not_accepted"}),
        ({"authorization": "Basic abc"}, {"Attach": "invalid_authorization_scheme"}),
        ({"authorization": "Bearer "}, {"Attach": "invalid_authorization_scheme"}),
        ({"authorization": "Bearer abc"}, {"Attach": "invalid_token"}),
        ({"authorization": f"Bearer {world.principal_token()}"}, {"Attach": "invalid_token"}),
        (control | {"x-oa-principal": world.worker_token()}, {"GetRun": "invalid_token"}),
        (control | {"x-oa-principal": "abc"}, {"GetRun": "invalid_token"}),
    ]
    for metadata, expected in cases:
        for method, outcome in expected.items():
            assert await _try(world, method, metadata) == outcome, (method, sorted(metadata))


async def test_tokens_are_for_this_service_and_hold_the_scope(world: World) -> None:
    control = {"x-oa-service-token": TOKENS["control"]}
    other = control | {"x-oa-principal": world.principal_token(aud="projector")}
    assert await _try(world, "GetRun", other) == "invalid_token"
    narrow = control | {"x-oa-principal": world.principal_token(scopes=["orgs.read"])}
    assert await _try(world, "GetRun", narrow) == "missing_scope"
    assert await _try(world, "ListReceiptKeys", narrow) == "ok"
    late = control | {"x-oa-principal": world.principal_token(exp=10)}
    assert await _try(world, "GetRun", late) == "token_expired"
    worker = {"authorization": f"bearer {world.worker_token(scopes=[])}"}
    assert await _try(world, "Attach", worker) == "missing_scope"


async def test_the_handler_sees_who_called(world: World, api: Api) -> None:
    control = {"x-oa-service-token": TOKENS["control"], "x-oa-principal": world.principal_token()}
    await _try(world, "GetRun", control)
    await _try(world, "DescribeLog", {"x-oa-service-token": TOKENS["projector"]})
    await _try(world, "Attach", {"authorization": f"Bearer {world.worker_token()}"})
    person, service, worker = api.callers
    assert isinstance(person, PersonCaller)
    assert (person.via, person.principal.subject, person.principal.org_id) == ("control", "usr_1", "org_1")
    assert service == ServiceCaller("projector")
    assert isinstance(worker, WorkerCaller)
    assert worker.principal.kind is PrincipalKind.WORKER
    assert 0 < worker.holds_for_s < 3600


async def test_a_service_without_a_verifier_takes_no_principals() -> None:
    authenticator = Authenticator("khala_gateway", {}, None)
    with pytest.raises(Refusal) as caught:
        await authenticator.authenticate(MethodPolicy(Need.WORKER), {"authorization": "Bearer x"})
    assert caught.value.reason == "invalid_token"


OPEN, CLOSED = MethodPolicy(Need.SERVICE), MethodPolicy(Need.SERVICE, callers=frozenset(), method="a.B/C")
FOR_TWO = MethodPolicy(Need.SERVICE, callers=frozenset({"projector", "control"}), method="a.B/C")
CERTIFICATES = {"control.svc": "control", "spiffe://x/control": "control", "projector.svc": "projector"}


@pytest.mark.parametrize(
    ("names", "token", "caller"),
    [
        (["projector.svc"], "", "projector"),
        (["other.svc", "projector.svc"], "", "projector"),
        (["control.svc", "spiffe://x/control"], "", "control"),
        (["projector.svc"], TOKENS["control"], "projector"),
        (["projector.svc"], "a wrong token", "projector"),
        (["other.svc"], TOKENS["control"], "control"),
        ([], TOKENS["control"], "control"),
    ],
)
async def test_a_service_is_known_by_its_certificate_and_otherwise_by_its_token(
    names: list[str], token: str, caller: str
) -> None:
    authenticator = Authenticator("runtime", {token_hash(TOKENS["control"]): "control"}, None, CERTIFICATES)
    assert await authenticator.authenticate(OPEN, {"x-oa-service-token": token}, names) == ServiceCaller(caller)


@pytest.mark.parametrize(
    ("names", "token", "why"),
    [
        ([], "", "no service token, and no certificate"),
        (["other.svc", "Projector.svc", "x.projector.svc"], "", "no service token, and no certificate"),
        (["other.svc"], "a wrong token", "OA_ACCEPTED_CERTIFICATES"),
        (["control.svc", "projector.svc"], TOKENS["control"], r"several services \(control, projector\)"),
    ],
)
async def test_who_is_no_accepted_service_is_refused(names: list[str], token: str, why: str) -> None:
    authenticator = Authenticator("runtime", {token_hash(TOKENS["control"]): "control"}, None, CERTIFICATES)
    with pytest.raises(Refusal, match=why) as caught:
        await authenticator.authenticate(OPEN, {"x-oa-service-token": token}, names)
    assert caught.value.reason == "service_not_accepted"


async def test_a_caller_that_may_not_is_told_who_may() -> None:
    authenticator = Authenticator("runtime", {}, None, CERTIFICATES | {"gateway.svc": "khala_gateway"})
    with pytest.raises(Refusal, match=r"khala_gateway may not call a\.B/C; only control, projector may") as caught:
        await authenticator.authenticate(FOR_TWO, {}, ["gateway.svc"])
    assert caught.value.reason == "caller_not_allowed"
    assert caught.value.metadata == {"method": "a.B/C", "callers": "control, projector"}
    with pytest.raises(Refusal, match=r"control may not call a\.B/C; nobody may"):
        await authenticator.authenticate(CLOSED, {}, ["control.svc"])


def test_there_is_no_caller_outside_of_a_call() -> None:
    set_caller(None)
    with pytest.raises(LookupError):
        current_caller()
    set_caller(ServiceCaller("control"))
    with pytest.raises(LookupError, match="control calls for itself"):
        current_principal()
    set_caller(None)
