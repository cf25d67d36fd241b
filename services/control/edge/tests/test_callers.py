"""What one caller can take of the edge, and that the others go on: real sockets of several networks."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from oa_base.clock import SECOND_NS
from oa_base.rate import Rate
from oa_base.refusal import Refusal
from oa_testing.clock import FakeClock
from oa_testing.locks import until_lock_waits
from oa_testing.plain_http import plain_http
from oa_testing.postgres import Database
from oa_testing.waiting import PATIENCE_S
from services.control.audit.app import MAX_NETWORKS, OTHER_NETWORKS
from services.control.edge.app import CallRates
from services.control.edge.domain import Room, is_same_origin
from services.control.edge.door import body
from services.control.edge.door.protocol import Connections
from services.control.edge.limits import BODIES_PER_CALL, CallClass
from services.control.tests.cases import Cases
from services.control.tests.harness import Control, new_id, raw, reason_of, running_control

START = "control.AuthService/StartChallenge"
CALLER = "control.SessionService/GetCaller"
GOOD = {"email": "ada@example.org", "deviceId": "dev_01JD8V0000000000000000000A"}
SLOW = 600
HALF_A_REQUEST = (
    b"POST /openagents.control.v1.AuthService/StartChallenge HTTP/1.1\r\nhost: x\r\n"
    b"content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
)


# ------------------------------------------------------------------------------------------------- slow requests


async def _half_a_request(control: Control, from_address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = control.http.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port, local_addr=(from_address, 0))
    writer.write(HALF_A_REQUEST)
    await writer.drain()
    return reader, writer


@contextlib.asynccontextmanager
async def slow_requests(control: Control, count: int, from_address: str) -> AsyncIterator[list[asyncio.StreamReader]]:
    """So many connections that send a head and one byte."""
    made = [await _half_a_request(control, from_address) for _ in range(count)]
    try:
        yield [reader for reader, _ in made]
    finally:
        for _, writer in made:
            writer.close()


@pytest.fixture
def patience_with_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine takes longer to send all the slow requests than the first of them are waited for."""
    monkeypatch.setattr(body, "BODY_GRACE_S", 4 * PATIENCE_S)


@pytest.mark.parametrize("from_address", ["127.0.0.1", "127.0.0.2"])
@pytest.mark.usefixtures("patience_with_bodies")
async def test_slow_strangers_stop_nobody_who_is_known(
    control_database: Database, tmp_path: Path, from_address: str
) -> None:
    # From the caller's own network and from another one; no limit of connections helps here.
    async with running_control(
        control_database,
        tmp_path,
        OA_HTTP_MAX_CONNECTIONS_OF_NETWORK="1000",
        OA_HTTP_BODY_TIMEOUT_S=str(4 * PATIENCE_S),
        OA_HTTP_MIN_BODY_BYTES_PER_S="1",
    ) as control:
        token = await control.access_token()
        async with slow_requests(control, SLOW, from_address) as readers:
            # The last of them was looked at: it is refused at once, as its network has its places.
            async with asyncio.timeout(PATIENCE_S):
                assert (await readers[-1].readline()).startswith(b"HTTP/1.1 429 ")
            async with plain_http(control.base_url, timeout_s=PATIENCE_S) as fresh:
                for _ in range(20):
                    answer = await fresh.post(
                        "/openagents.control.v1.SessionService/GetCaller",
                        json={},
                        headers={"authorization": f"Bearer {token}"},
                    )
                    assert answer.status_code == 200, answer.text
            if from_address != "127.0.0.1":
                assert (await control.call(START, GOOD | {"email": "bob@example.org"})).status_code == 200


@pytest.mark.usefixtures("patience_with_bodies")
async def test_a_network_has_a_limited_number_of_connections(control_database: Database, tmp_path: Path) -> None:
    async with running_control(
        control_database, tmp_path, OA_HTTP_MAX_CONNECTIONS_OF_NETWORK="4", OA_HTTP_BODY_TIMEOUT_S="60"
    ) as control:
        async with slow_requests(control, 4, "127.0.0.2"):
            answer = await raw(control, HALF_A_REQUEST, from_address="127.0.0.2")
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert b"\r\nretry-after: 1\r\n" in answer
            assert b'"reason":"overloaded"' in answer
            assert (await control.call(START, GOOD)).status_code == 200
        # Closed ones don't count.
        async with asyncio.timeout(PATIENCE_S):
            while True:
                async with slow_requests(control, 4, "127.0.0.2") as readers:
                    if not any(reader.at_eof() for reader in readers):
                        break


async def test_a_caller_who_is_denied_has_a_limit_too(control_database: Database, tmp_path: Path, admin: Any) -> None:
    """Each denial costs a row: without a limit, one caller could fill the org's log."""
    limits: dict[str, Any] = {"OA_CALLS_WRITES_BURST": "2", "OA_CALLS_WRITES_PER_S": "0.001"}
    async with running_control(control_database, tmp_path, **limits) as control:
        token = await control.access_token()
        await admin.execute("UPDATE control.memberships SET role = 'viewer'")
        create = {"idempotencyKey": "one", "spec": {"adapter": "exec", "exec": {"argv": ["true"]}}}
        answers = [await control.call("runtime.RunService/CreateRun", create, token) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [403, 403, 429, 429]
    assert await admin.fetchval("SELECT count(*) FROM control.audit_events WHERE action = 'call.denied'") == 2


def test_connections_are_counted_by_network_and_together() -> None:
    connections = Connections(5, 2)
    first = connections.open("192.0.2.1")
    assert first == "192.0.2.1"
    assert connections.open("192.0.2.1")
    assert connections.open("192.0.2.1") is None
    connections.close(first)
    assert connections.open("192.0.2.1")
    assert connections.open("2001:db8:0:1::1")
    assert connections.open("2001:db8:0:1::2") == "2001:db8:0:1::/64"
    assert connections.open("2001:db8:0:1::3") is None
    assert connections.open("192.0.2.2")
    assert connections.open("192.0.2.3") is None, "five are all"


async def test_a_trusted_proxy_has_no_limit_of_connections(control_database: Database, tmp_path: Path) -> None:
    async with (
        running_control(
            control_database, tmp_path, OA_HTTP_MAX_CONNECTIONS_OF_NETWORK="1", OA_TRUSTED_PROXIES="127.0.0.2"
        ) as control,
        slow_requests(control, 4, "127.0.0.2") as readers,
    ):
        assert (await control.call(START, GOOD)).status_code == 200
        assert not any(reader.at_eof() for reader in readers)


async def test_a_body_that_comes_in_drops_is_not_waited_for(control_database: Database, tmp_path: Path) -> None:
    async with running_control(control_database, tmp_path, OA_HTTP_MIN_BODY_BYTES_PER_S="1000000") as control:
        reader, writer = await _half_a_request(control, "127.0.0.1")
        dropping = asyncio.create_task(_drop(writer))
        async with asyncio.timeout(PATIENCE_S):
            assert (await reader.readline()).startswith(b"HTTP/1.1 504 ")
        dropping.cancel()
        writer.close()


async def _drop(writer: asyncio.StreamWriter) -> None:
    for _ in range(90):
        writer.write(b" ")
        await asyncio.sleep(0.2)


def test_a_room_counts_each_caller_those_on_their_way_and_those_at_work() -> None:
    room = Room(max_calls=1, max_of_one=2)
    with contextlib.ExitStack() as held:
        held.enter_context(room.coming("a"))
        held.enter_context(room.coming("a"))
        with pytest.raises(Refusal, match="2 calls of yours"), room.coming("a"):
            pass
        with room.working(), pytest.raises(Refusal, match="overloaded"), room.working():
            pass
        for number in range(BODIES_PER_CALL - 2):
            held.enter_context(room.coming(f"b{number}"))
        with pytest.raises(Refusal, match="on their way"), room.coming("c"):
            pass
    with room.coming("a"), room.working():
        pass


def test_an_org_whose_callers_flood_the_edge_leaves_room_for_other_orgs() -> None:
    room = Room(max_calls=90, max_of_one=1)
    with contextlib.ExitStack() as held:
        for _ in range(80):
            held.enter_context(room.working("flood"))
        with pytest.raises(Refusal, match="overloaded"), room.working("flood"):
            pass
        for number in range(80 * BODIES_PER_CALL):
            held.enter_context(room.coming(f"flood {number}", "flood"))
        with pytest.raises(Refusal, match="on their way"), room.coming("flood x", "flood"):
            pass
        with room.coming("quiet", "quiet"), room.working("quiet"):
            pass
    with room.coming("flood x", "flood"), room.working("flood"):
        pass


# ------------------------------------------------------------------------------------------------- rates


def test_each_caller_has_a_bucket_of_each_kind_and_is_told_when_to_come_back() -> None:
    clock = FakeClock()
    rates = CallRates(dict.fromkeys(CallClass, Rate(2, 10 * SECOND_NS)), clock)
    for _ in range(2):
        rates.take(CallClass.READ, "ada")
    with pytest.raises(Refusal) as refused:
        rates.take(CallClass.READ, "ada")
    assert (refused.value.reason, refused.value.retry_after_ms) == ("rate_limited", 10_000)
    rates.take(CallClass.WRITE, "ada")
    rates.take(CallClass.READ, "bob")


def test_a_flood_of_callers_takes_a_limited_memory() -> None:
    rates = CallRates(dict.fromkeys(CallClass, Rate(1, SECOND_NS)), FakeClock(), max_buckets=100)
    for number in range(1000):
        rates.take(CallClass.PUBLIC, f"network {number}")
    assert len(rates._buckets) <= 100
    with pytest.raises(Refusal, match="rate_limited"):
        rates.take(CallClass.PUBLIC, "network 999")


async def test_reads_writes_and_mints_have_limits_of_their_own(control_database: Database, tmp_path: Path) -> None:
    slow = {f"OA_CALLS_{kind}_{what}": "0.001" for kind in ("READS", "WRITES", "MINTS") for what in ("PER_S",)}
    bursts = {"OA_CALLS_READS_BURST": "3", "OA_CALLS_WRITES_BURST": "2", "OA_CALLS_MINTS_BURST": "1"}
    limits: dict[str, Any] = slow | bursts
    async with running_control(control_database, tmp_path, **limits) as control:
        ada, bob = await control.access_token(), await control.access_token("bob@example.org")
        user = (await control.ok(CALLER, {}, ada))["principal"]["subject"]
        mint, write = "control.SyncTokenService/MintSyncToken", "control.ServiceAccountService/CreateServiceAccount"
        topics = {"topics": [f"user:{user}:runs"]}
        asked = {CALLER: ({}, 2), mint: (topics, 1), write: ({"name": "script"}, 2)}
        for method, (body, left) in asked.items():
            answers = [await control.call(method, body, ada) for _ in range(left + 1)]
            assert [answer.status_code for answer in answers] == [200] * left + [429], method
            assert reason_of(answers[-1]) == "rate_limited"
            assert int(answers[-1].headers["retry-after"]) > 0
        assert (await control.call(CALLER, {}, bob)).status_code == 200


async def test_keys_and_refreshes_are_limited_for_a_network(control_database: Database, tmp_path: Path) -> None:
    async with running_control(
        control_database,
        tmp_path,
        OA_CALLS_PUBLIC_PER_S="0.001",
        OA_CALLS_PUBLIC_BURST="3",
        OA_TRUSTED_PROXIES="127.0.0.1",
    ) as control:
        exchange = {"apiKey": "oak_" + "A" * 43, "use": "TOKEN_USE_EDGE"}
        method = "control.ServiceAccountService/ExchangeKey"
        statuses = [
            (await control.call(method, exchange, x_forwarded_for="198.51.100.1")).status_code for _ in range(4)
        ]
        assert 429 not in statuses[:3]
        assert statuses[3] == 429
        assert (await control.call(method, exchange, x_forwarded_for="198.51.100.2")).status_code != 429


async def test_strangers_are_limited_whatever_they_call_and_known_callers_beside_them_are_not(
    control_database: Database, tmp_path: Path
) -> None:
    limits: dict[str, Any] = {"OA_CALLS_PUBLIC_PER_S": "0.001", "OA_CALLS_PUBLIC_BURST": "4"}
    async with running_control(control_database, tmp_path, **limits) as control:
        signed_in = await control.sign_in()  # two of the network's four
        token, device = signed_in["tokens"]["accessToken"], {"deviceId": signed_in["deviceId"]}
        assert [(await control.call(CALLER, {}, bad)).status_code for bad in ("", "abc", "abc", "")] == [401] * 2 + [
            429
        ] * 2
        assert (await control.call(CALLER, {}, token)).status_code == 200
        await control.ok("control.SessionService/RevokeSessions", device, token)
        assert reason_of(await control.call(CALLER, {}, token)) == "rate_limited", "a token that has ended is none"


# ------------------------------------------------------------------------------------------------- late bodies


@contextlib.asynccontextmanager
async def admitted(
    control: Control, method: str, body: bytes, token: str
) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """A call that was admitted and whose body is waited for; what this yields sends the body and returns the answer."""
    plane, _, rest = method.partition(".")
    head = (
        f"POST /openagents.{plane}.v1.{rest} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {token}\r\nexpect: 100-continue\r\ncontent-length: {len(body)}\r\nconnection: close"
    )
    reader, writer = await asyncio.open_connection(control.http.base_url.host, control.http.base_url.port)
    writer.write(f"{head}\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE_S):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")

    async def rest_of_it() -> tuple[int, str]:
        writer.write(body)
        async with asyncio.timeout(PATIENCE_S):
            answer = await reader.read()
        return int(answer.split(b" ")[1]), answer.decode()

    try:
        yield rest_of_it
    finally:
        writer.close()


async def test_who_loses_access_while_the_body_is_on_its_way_may_no_longer_call(control: Control, admin: Any) -> None:
    signed_in = await control.sign_in()
    token, device = signed_in["tokens"]["accessToken"], {"deviceId": signed_in["deviceId"]}
    create = "control.ServiceAccountService/CreateServiceAccount", b'{"name": "backdoor"}'
    async with admitted(control, *create, token) as in_time, admitted(control, *create, token) as late:
        assert (await in_time())[0] == 200
        await control.ok("control.SessionService/RevokeSessions", device, token)
        status, answer = await late()
    assert (status, "token_revoked" in answer) == (401, True)
    assert await admin.fetchval("SELECT count(*) FROM control.service_accounts") == 1


async def test_who_loses_a_role_while_the_body_is_on_its_way_is_denied_on_record(control: Control, admin: Any) -> None:
    token = await control.access_token()
    create = "control.ServiceAccountService/CreateServiceAccount", b'{"name": "backdoor"}'
    async with admitted(control, *create, token) as late:
        await admin.execute("UPDATE control.memberships SET role = 'viewer'")
        status, answer = await late()
    assert (status, "org_scope_denied" in answer) == (403, True)
    assert await admin.fetchval("SELECT count(*) FROM control.audit_events WHERE action = 'call.denied'") == 1
    assert await admin.fetchval("SELECT count(*) FROM control.service_accounts") == 0


async def test_a_forwarded_call_of_a_person_who_was_removed_meanwhile_does_not_reach_its_service(
    control: Control, admin: Any
) -> None:
    token = await control.access_token()
    body = json.dumps({"idempotencyKey": "k-1", "spec": {"adapter": "exec", "exec": {"argv": ["true"]}}}).encode()
    async with admitted(control, "runtime.RunService/CreateRun", body, token) as late:
        await admin.execute("DELETE FROM control.memberships")
        assert (await late())[0] == 403
    assert control.runtime.runs == {}


# ------------------------------------------------------------------------------------------------- wrong keys


WRONG_KEY = {"apiKey": "oak_" + "A" * 43, "use": "TOKEN_USE_EDGE"}
REFUSED = "SELECT network, reason, target FROM control.audit_events WHERE action = 'credentials.refused'"


async def test_wrong_keys_are_on_record_in_one_row_for_a_network(
    control_database: Database, tmp_path: Path, admin: Any
) -> None:
    exchange = "control.ServiceAccountService/ExchangeKey"
    async with running_control(control_database, tmp_path, OA_TRUSTED_PROXIES="127.0.0.1") as control:
        for number in range(12):
            answer = await control.call(exchange, WRONG_KEY, x_forwarded_for=f"198.51.100.{number % 2}")
            assert reason_of(answer) == "invalid_api_key"
        refresh = {"refreshToken": "ort_" + "A" * 43, "deviceId": new_id("dev")}
        answer = await control.call("control.AuthService/RefreshSession", refresh, x_forwarded_for="198.51.100.0")
        assert answer.status_code == 401, answer.text
        other = reason_of(answer)
    # Written down at the end, and else when the minute is over.
    rows = {row["network"]: (row["reason"], row["target"]) for row in await admin.fetch(REFUSED)}
    assert rows == {
        "198.51.100.0": ("invalid_api_key", f"6 invalid_api_key, 1 {other}"),
        "198.51.100.1": ("invalid_api_key", "6 invalid_api_key"),
    }


async def test_counts_wait_for_the_database_and_for_nothing_else(cases: Cases, admin: Any) -> None:
    refused = cases.refused
    for number in range(MAX_NETWORKS + 2):
        refused.note(f"network {number}", "invalid_api_key")
    await admin.execute("REVOKE INSERT ON control.audit_events FROM control_app")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await refused.write_down()
    await admin.execute("GRANT INSERT ON control.audit_events TO control_app")
    await refused.write_down()
    await refused.write_down()
    counts = {row["network"]: row["target"] for row in await admin.fetch(REFUSED)}
    assert len(counts) == MAX_NETWORKS + 1
    assert (counts["network 0"], counts[OTHER_NETWORKS]) == ("1 invalid_api_key", "2 invalid_api_key")


async def test_counts_that_are_being_written_when_the_process_drains_are_kept(cases: Cases, admin: Any) -> None:
    cases.refused.note("network", "invalid_api_key")
    async with admin.transaction():
        await admin.execute("LOCK TABLE control.audit_events")
        writing = asyncio.create_task(cases.refused.write_down())
        await until_lock_waits(admin)
        for number in range(MAX_NETWORKS):
            cases.refused.note(f"network {number}", "invalid_api_key")
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    cases.refused.note("network", "invalid_api_key")
    await cases.refused.write_down()
    counts = {row["network"]: row["target"] for row in await admin.fetch(REFUSED)}
    assert (counts["network"], counts[OTHER_NETWORKS]) == ("2 invalid_api_key", "1 invalid_api_key")
    assert len(counts) == MAX_NETWORKS + 1, "those that came meanwhile have no room of their own"


# ------------------------------------------------------------------------------------------------- networks


ONE_CODE: dict[str, Any] = {"OA_SIGN_IN_NETWORK_BURST": "1", "OA_SIGN_IN_NETWORK_PERIOD_S": "3600"}


async def asked_from(control: Control, forwarded: str) -> int:
    """The status of a call for a code with this X-Forwarded-For."""
    body = GOOD | {"email": f"{new_id('usr')}@example.org"}
    return (await control.call(START, body, x_forwarded_for=forwarded)).status_code


async def test_a_client_names_no_network_of_its_own(control_database: Database, tmp_path: Path) -> None:
    async with running_control(control_database, tmp_path, **ONE_CODE) as control:
        # Nobody in front is trusted: six names are one caller.
        assert [await asked_from(control, f"198.51.100.{n}") for n in range(6)] == [200] + [429] * 5


async def test_behind_a_trusted_proxy_each_client_has_limits_of_its_own(
    control_database: Database, tmp_path: Path
) -> None:
    async with running_control(
        control_database, tmp_path, OA_TRUSTED_PROXIES="127.0.0.1,10.0.0.0/8", **ONE_CODE
    ) as control:
        assert await asked_from(control, "198.51.100.1") == 200
        assert await asked_from(control, "198.51.100.2:4711, 10.1.1.1") == 200
        assert await asked_from(control, "6.6.6.6, 198.51.100.1") == 429
        assert await asked_from(control, "[2001:db8:1:2::1]:443") == 200
        assert await asked_from(control, "2001:db8:1:2::2") == 429


# ------------------------------------------------------------------------------------------------- origins


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", True),
        ("https://api.example.org", "api.example.org", True),  # TLS ended at a proxy
        ("https://api.example.org", "api.example.org:443", True),
        ("https://API.example.org", "api.EXAMPLE.org", True),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("https://api.example.org", "api.example.org:80", False),
        ("https://api.example.org:8443", "api.example.org", False),
        ("https://api.example.org.evil.org", "api.example.org", False),
        ("https://evil.org", "api.example.org", False),
        ("null", "null", False),
        ("null", "", False),
        ("", "", False),
        ("https://", "", False),
        ("ftp://api.example.org", "api.example.org", False),
        ("https://api.example.org/path", "api.example.org", False),
        ("https://api.example.org:x", "api.example.org:x", False),
        ("https://api.example.org", "api.example.org/x", False),
    ],
)
def test_a_page_of_the_edges_own_origin(origin: str, host: str, same: bool) -> None:
    assert is_same_origin(origin, host) is same


async def test_a_page_of_the_edges_own_origin_may_call(control: Control) -> None:
    own = str(control.http.base_url).rstrip("/")
    assert (await control.call(START, GOOD, origin=own)).status_code == 200
    answer = await control.call(START, GOOD, origin="https://api.example.org", host="api.example.org")
    assert reason_of(answer) == "rate_limited", "it got through to sign-in"
    answer = await control.call(START, GOOD, origin="https://evil.example.org")
    assert (answer.status_code, reason_of(answer)) == (403, "origin_not_allowed")
    assert json.loads(answer.content)["code"] == "permission_denied"
