"""Signing in and staying signed in, against an edge that answers as the test says."""

from __future__ import annotations

import asyncio
import errno
import multiprocessing
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from google.protobuf.message import Message

from oa_base.backoff import Backoff
from oa_base.refusal import Refusal
from oa_client.cpython.files import LOCK_TIMEOUT_S, ClientHome, FileCredentialStore
from oa_client.cpython.network import HTTP_TIMEOUT_S
from oa_client.edge.auth import REFRESH_TIMEOUT_MS, Auth, Credentials
from oa_client.edge.calls import AccessToken, Edge
from oa_client.edge.tests.answers import answered, connect_error
from oa_client.transport import HttpAnswer
from oa_testing.waiting import PATIENCE_S
from oa_wire.connect import from_connect
from openagents.control.v1 import auth_service_pb2 as pb
from openagents.control.v1 import provider_sign_in_service_pb2 as provider_pb
from openagents.control.v1 import session_service_pb2

DEVICE = "dev_01JD8V0000000000000000000A"
NOW = 1_000_000.0
FIRST = AccessToken("access-0", "usr_1", "org_1")
"""The token of a new session."""
Handler = Callable[[str, bytes, str], "Message | Refusal"]


class FakeHttp:
    """Answers each POST with what `handle(method, body, token)` gives."""

    def __init__(self, handle: Handler) -> None:
        self.handle = handle
        self.calls: list[tuple[str, str]] = []
        self.timeouts: dict[str, str] = {}
        self.called = asyncio.Event()
        self.release = asyncio.Event()
        self.release.set()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        method = url.rpartition("/")[2]
        self.calls.append((method, token))
        self.called.set()
        self.timeouts[method] = headers.get("Connect-Timeout-Ms", "")
        await self.release.wait()
        answer = self.handle(method, body, token)
        if isinstance(answer, Refusal):
            return HttpAnswer(answer.info.http_status, connect_error(answer))
        return answered(answer, NOW)

    async def get(self, url: str) -> HttpAnswer:
        raise NotImplementedError

    def count(self, method: str) -> int:
        return sum(called == method for called, _ in self.calls)


def tokens(number: int, lifetime_s: float = 3600) -> pb.SessionTokens:
    granted = pb.SessionTokens(access_token=f"access-{number}", refresh_token=f"refresh-{number}")
    granted.access_expire_time.FromMilliseconds(int((NOW + lifetime_s) * 1000))
    return granted


class Control:
    """Just enough of control: tokens count up, and only the newest access token is good."""

    def __init__(self) -> None:
        self.number = 0
        self.acts_in = ""
        self.page = "https://op.example/authorize"
        self.token_org = ""
        self.refresh_refusal: Refusal | None = None
        self.switch_answer: Refusal | None = None
        self.brought: list[str] = []

    def __call__(self, method: str, body: bytes, token: str) -> Message | Refusal:
        match method:
            case "StartChallenge":
                return pb.StartChallengeResponse(challenge_id="cha_1", resend_after_ms=60_000)
            case "VerifyChallenge":
                guess = pb.VerifyChallengeRequest.FromString(body)
                self.brought.append(guess.refresh_token)
                if guess.code != "12345678":
                    return Refusal("code_incorrect", "wrong")
                return pb.VerifyChallengeResponse(
                    tokens=tokens(self.number), user_id="usr_1", org_id="org_1", session_id="ses_1"
                )
            case "StartProviderSignIn" | "FinishProviderSignIn":
                return self._with_provider(method, body)
            case "RefreshSession":
                if self.refresh_refusal:
                    return self.refresh_refusal
                if pb.RefreshSessionRequest.FromString(body).refresh_token != f"refresh-{self.number}":
                    return Refusal("token_replay", "an old one")
                self.number += 1
                self.token_org = self.acts_in
                granted = tokens(self.number)
                granted.org_id = self.acts_in
                return pb.RefreshSessionResponse(tokens=granted)
        if token == f"access-{self.number}" and self.token_org != self.acts_in:
            return Refusal("org_changed", "another org")
        if method == "SwitchOrg" and token == f"access-{self.number}":
            self.acts_in = session_service_pb2.SwitchOrgRequest.FromString(body).org_id
            return self.switch_answer or session_service_pb2.SwitchOrgResponse()
        if token != f"access-{self.number}":
            return Refusal("token_expired", "too old")
        return session_service_pb2.GetCallerResponse(email=f"seen with {token}")

    def _with_provider(self, method: str, body: bytes) -> Message | Refusal:
        if method == "StartProviderSignIn":
            answer = provider_pb.StartProviderSignInResponse(sign_in_id="psi_1", state="ours")
            answer.authorization_url = self.page
            return answer
        brought = provider_pb.FinishProviderSignInRequest.FromString(body)
        self.brought.append(brought.refresh_token)
        if (brought.sign_in_id, brought.device_id, brought.code) != ("psi_1", DEVICE, "code"):
            return Refusal("provider_refused", "wrong")
        return provider_pb.FinishProviderSignInResponse(
            tokens=tokens(self.number), user_id="usr_1", org_id="org_1", session_id="ses_1", email="a@b.example"
        )


@pytest.fixture
def control() -> Control:
    return Control()


@pytest.fixture
def http(control: Control) -> FakeHttp:
    return FakeHttp(control)


@pytest.fixture
def store(tmp_path: Path) -> FileCredentialStore:
    return FileCredentialStore(tmp_path)


@pytest.fixture
def auth(http: FakeHttp, store: FileCredentialStore) -> Auth:
    return Auth(Edge("http://edge.test", http, "oa-test/0", now=lambda: NOW), store, DEVICE)


async def sign_in(auth: Auth) -> Credentials:
    return await auth.verify(await auth.start("a@example.com"), " 12345678 ")


async def whoami(auth: Auth, http: FakeHttp) -> str:
    edge = Edge("http://edge.test", http, "oa-test/0")
    request, response = session_service_pb2.GetCallerRequest(), session_service_pb2.GetCallerResponse
    return (await edge.call("openagents.control.v1.SessionService/GetCaller", request, response, auth)).email


async def test_signing_in_keeps_a_private_file(auth: Auth, tmp_path: Path) -> None:
    credentials = await sign_in(auth)
    assert (credentials.user_id, credentials.email) == ("usr_1", "a@example.com")
    assert auth.credentials() == credentials
    assert (tmp_path / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert "access-0" not in repr(credentials)


async def test_a_wrong_code_keeps_nothing(auth: Auth) -> None:
    with pytest.raises(Refusal) as caught:
        await auth.verify(await auth.start("a@example.com"), "00000000")
    assert caught.value.reason == "code_incorrect"
    with pytest.raises(Refusal) as nobody:
        auth.credentials()
    assert nobody.value.reason == "missing_authorization"
    assert "oa login" in nobody.value.message


async def test_a_sign_in_again_brings_the_session_that_is_to_go_on(auth: Auth, control: Control) -> None:
    await sign_in(auth)
    control.number = 5
    assert (await sign_in(auth)).access_token == "access-5"
    await auth.finish(await auth.start_with("oidc", "http://127.0.0.1:1/callback"), "ours", "code")
    assert control.brought == ["", "refresh-0", "refresh-5"]


async def test_nobody_refreshes_while_a_sign_in_is_on_its_way(auth: Auth, http: FakeHttp, control: Control) -> None:
    await sign_in(auth)
    challenge = await auth.start("a@example.com")
    control.number = 5
    http.release.clear()
    http.called.clear()
    entering = asyncio.create_task(auth.verify(challenge, "12345678"))
    async with asyncio.timeout(PATIENCE_S):
        await http.called.wait()
    refreshing = asyncio.create_task(auth.renewed(FIRST))
    for _ in range(20):  # as far as it gets by itself
        await asyncio.sleep(0)
    http.release.set()
    await entering
    assert (await refreshing).value == "access-5", "the sign-in was quicker"
    assert http.count("RefreshSession") == 0


async def test_a_provider_signs_in_with_the_state_of_this_sign_in_only(auth: Auth, http: FakeHttp) -> None:
    begun = await auth.start_with("oidc", "http://127.0.0.1:1/callback")
    assert begun.url not in repr(begun)
    with pytest.raises(Refusal, match="challenge_expired"):
        await auth.finish(begun, "somebody else's", "code")
    assert http.count("FinishProviderSignIn") == 0, "a foreign answer does not leave the device"
    with pytest.raises(Refusal, match="provider_refused"):
        await auth.finish(begun, "ours", "guessed")
    credentials = await auth.finish(begun, "ours", "code")
    assert auth.credentials() == credentials
    assert credentials.email == "a@b.example"


@pytest.mark.parametrize("page", ["", "file:///etc/passwd", "--new-window", "javascript:alert(1)"])
async def test_a_site_opens_nothing_but_web_pages(auth: Auth, control: Control, page: str) -> None:
    control.page = page
    with pytest.raises(Refusal, match="malformed_message"):
        await auth.start_with("oidc", "http://127.0.0.1:1/callback")


async def test_a_call_with_an_expired_token_is_made_again_once(auth: Auth, http: FakeHttp, control: Control) -> None:
    await sign_in(auth)
    auth._store.save(Credentials("usr_1", "org_1", "ses_1", "", "access-of-before", NOW + 999, "refresh-0"))
    assert await whoami(auth, http) == "seen with access-1"
    assert http.count("RefreshSession") == 1
    control.number = 7  # nothing that can be had is good any more: give up after one try
    with pytest.raises(Refusal):
        await whoami(auth, http)
    assert http.count("RefreshSession") == 2


async def test_a_token_about_to_expire_is_renewed_before_use(auth: Auth, http: FakeHttp) -> None:
    await sign_in(auth)
    auth._store.save(Credentials("usr_1", "org_1", "ses_1", "", "access-0", NOW + 5, "refresh-0"))
    assert await whoami(auth, http) == "seen with access-1"
    assert ("GetCaller", "access-0") not in http.calls


@pytest.mark.parametrize("wrong_by", [-86_400.0, 86_400.0])
async def test_a_device_whose_clock_is_wrong_renews_no_token_that_is_new(
    http: FakeHttp, store: FileCredentialStore, wrong_by: float
) -> None:
    def one_process() -> Auth:
        return Auth(Edge("http://edge.test", http, "oa-test/0", now=lambda: NOW + wrong_by), store, DEVICE)

    await sign_in(one_process())
    for _ in range(3):
        assert await whoami(one_process(), http) == "seen with access-0"
    assert http.count("RefreshSession") == 0


async def test_many_callers_share_one_refresh(auth: Auth, http: FakeHttp) -> None:
    await sign_in(auth)
    http.release.clear()
    waiting = [asyncio.create_task(auth.renewed(FIRST)) for _ in range(20)]
    await asyncio.sleep(0.05)
    waiting[0].cancel()  # one that gives up takes nothing from the others
    http.release.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert results[1:] == [AccessToken("access-1", "usr_1", "org_1")] * 19
    assert http.count("RefreshSession") == 1


async def test_what_another_process_renewed_is_used(auth: Auth, http: FakeHttp, store: FileCredentialStore) -> None:
    await sign_in(auth)
    store.save(Credentials("usr_1", "org_1", "ses_1", "", "access-of-theirs", NOW + 999, "refresh-9"))
    assert (await auth.renewed(FIRST)).value == "access-of-theirs"
    assert http.count("RefreshSession") == 0


async def test_an_ended_session_is_forgotten_and_said(auth: Auth, control: Control) -> None:
    await sign_in(auth)
    control.refresh_refusal = Refusal("token_replay", "revoked")
    with pytest.raises(Refusal) as caught:
        await auth.renewed(FIRST)
    assert caught.value.reason == "reauth_required"
    assert "oa login" in caught.value.message
    with pytest.raises(Refusal) as nobody:
        auth.credentials()
    assert nobody.value.reason == "missing_authorization"


async def test_a_proxy_that_asks_for_a_sign_in_does_not_end_the_session(auth: Auth, control: Control) -> None:
    await sign_in(auth)
    control.refresh_refusal = from_connect(401, b"<html>Sign in</html>")
    with pytest.raises(Refusal) as caught:
        await auth.renewed(FIRST)
    assert caught.value.reason == "unavailable"
    control.refresh_refusal = None
    assert (await auth.renewed(FIRST)).value == "access-1"


async def test_an_edge_with_other_keys_does_not_end_the_session(auth: Auth, control: Control) -> None:
    await sign_in(auth)
    control.refresh_refusal = Refusal("invalid_token", "the refresh token is not one of ours")
    with pytest.raises(Refusal) as caught:
        await auth.renewed(FIRST)
    assert caught.value.reason == "reauth_required"
    control.refresh_refusal = None
    assert (await auth.renewed(FIRST)).value == "access-1"


async def test_an_edge_that_is_down_does_not_end_the_session(auth: Auth, control: Control) -> None:
    await sign_in(auth)
    control.refresh_refusal = Refusal("unavailable", "down")
    with pytest.raises(Refusal) as caught:
        await auth.renewed(FIRST)
    assert caught.value.reason == "unavailable"
    control.refresh_refusal = None
    assert (await auth.renewed(FIRST)).value == "access-1"


def _staging_files(folder: Path) -> list[Path]:
    return list(folder.glob(".*"))


async def test_credentials_that_can_not_be_kept_are_not_used(
    auth: Auth, http: FakeHttp, control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Their first use would tell control that the refresh token before, which the file still holds, is a stolen one.
    await sign_in(auth)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("os.fsync", full)
        with pytest.raises(Refusal) as caught:
            await auth.renewed(FIRST)
    assert (caught.value.reason, caught.value.field) == ("invalid_setting", "OA_CLIENT_HOME")
    assert "No space left" in caught.value.message
    assert auth.credentials().refresh_token == "refresh-0"
    assert not _staging_files(tmp_path), "nothing is left lying about"
    control.number = 0  # as control does: the answer again
    assert await whoami(auth, http) != ""
    assert auth.credentials().refresh_token == "refresh-0"


async def test_the_edge_gives_a_refresh_up_before_any_client_asks_again(auth: Auth, http: FakeHttp) -> None:
    await sign_in(auth)
    await auth.renewed(FIRST)
    assert http.timeouts["RefreshSession"] == str(REFRESH_TIMEOUT_MS)
    assert REFRESH_TIMEOUT_MS / 1000 < HTTP_TIMEOUT_S < LOCK_TIMEOUT_S
    assert http.timeouts["VerifyChallenge"] == ""


@pytest.mark.parametrize("content_type", ["", "text/html", "application/json"])
@pytest.mark.parametrize("page", [b"<html>welcome</html>", b""])
async def test_what_is_no_edge_is_said(page: bytes, content_type: str) -> None:
    """An empty page would be a message in which every field has its default, such as a list of no runs."""

    class Page:
        async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
            return HttpAnswer(200, page, {"content-type": content_type})

        async def get(self, url: str) -> HttpAnswer:
            raise NotImplementedError

    edge = Edge("http://elsewhere", Page(), "oa-test/0")
    with pytest.raises(Refusal) as caught:
        await edge.call("x/Y", pb.StartChallengeRequest(), pb.StartChallengeResponse)
    assert caught.value.reason == "unavailable"
    assert "OA_CONTROL_URL" in caught.value.message


def _hold(folder: str, held: multiprocessing.synchronize.Event, release: multiprocessing.synchronize.Event) -> None:
    async def hold() -> None:
        async with FileCredentialStore(Path(folder)).exclusive():
            held.set()
            release.wait(PATIENCE_S)

    asyncio.run(hold())


async def test_only_one_process_renews_at_a_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(tmp_path), held, release))
    other.start()
    await asyncio.to_thread(held.wait, PATIENCE_S)
    store = FileCredentialStore(tmp_path)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), store.exclusive():
            pass
    release.set()
    async with asyncio.timeout(PATIENCE_S), store.exclusive():
        pass
    other.join()


def test_the_client_home_knows_its_device_and_its_sites(tmp_path: Path) -> None:
    home = ClientHome(tmp_path / "c")
    device = home.device_id()
    assert device.startswith("dev_")
    assert ClientHome(tmp_path / "c").device_id() == device
    assert home.site("http://127.0.0.1:8080").name == "127.0.0.1-8080"
    assert home.site("https://Oa.Example.com/").name == "oa.example.com-443"
    for wrong in ("127.0.0.1:8080", "ftp://x", "http://", "http://x:notaport"):
        with pytest.raises(Refusal) as caught:
            home.site(wrong)
        assert caught.value.field == "OA_CONTROL_URL"


async def test_a_call_that_may_be_repeated_is_repeated_for_a_moment(
    http: FakeHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oa_client.edge.calls.RETRY", Backoff(first_ms=1, max_ms=1))
    answers: list[Message | Refusal] = [Refusal("unavailable", "restarting"), Refusal("overloaded", "full")]
    http.handle = lambda method, body, token: answers.pop(0) if answers else pb.StartChallengeResponse()
    edge = Edge("http://edge.test", http, "oa-test/0")
    request, response = pb.StartChallengeRequest(), pb.StartChallengeResponse
    await edge.call("x/Y", request, response, attempts=3)
    assert http.count("Y") == 3
    answers += [Refusal("unavailable", "restarting")]
    with pytest.raises(Refusal):
        await edge.call("x/Y", request, response)
    answers += [Refusal("rate_limited", "wait", retry_after_ms=60_000)]
    with pytest.raises(Refusal):
        await edge.call("x/Y", request, response, attempts=3)
    answers += [Refusal("not_found", "no")]
    with pytest.raises(Refusal):
        await edge.call("x/Y", request, response, attempts=3)
    assert http.count("Y") == 6


@pytest.mark.parametrize(("reason", "posts"), [("deadline_exceeded", 1), ("unavailable", 3)])
async def test_an_edge_that_says_nothing_is_waited_for_once(reason: str, posts: int) -> None:
    class Silent:
        posts = 0

        async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
            self.posts += 1
            raise Refusal(reason, "no answer within 30 s", retry_after_ms=1)

        async def get(self, url: str) -> HttpAnswer:
            raise NotImplementedError

    edge = Silent()
    request, response = pb.StartChallengeRequest(), pb.StartChallengeResponse
    with pytest.raises(Refusal, match="no answer within"):
        await Edge("http://edge.test", edge, "oa-test/0").call("x/Y", request, response, attempts=3)
    assert edge.posts == posts


async def test_switching_takes_a_token_of_the_other_org(auth: Auth, http: FakeHttp, control: Control) -> None:
    await sign_in(auth)
    await auth.switch_org("org_2")
    assert auth.credentials().org_id == "org_2"
    assert await whoami(auth, http) == "seen with access-1"


async def test_a_switch_whose_answer_was_lost_is_a_switch(auth: Auth, http: FakeHttp, control: Control) -> None:
    await sign_in(auth)
    control.switch_answer = Refusal("unavailable", "lost", retry_after_ms=1)
    await auth.switch_org("org_2")
    assert auth.credentials().org_id == "org_2"
    assert http.count("SwitchOrg") == 2


async def test_a_call_for_one_org_is_not_made_in_another(auth: Auth, http: FakeHttp, control: Control) -> None:
    await sign_in(auth)
    control.acts_in = "org_own"
    with pytest.raises(Refusal) as refused:
        await whoami(auth, http)
    assert refused.value.reason == "org_changed"
    assert http.count("GetCaller") == 1
    assert auth.credentials().org_id == "org_own"
    assert await whoami(auth, http) == "seen with access-1", "the next call is one for the org that is kept now"


async def test_a_token_that_has_expired_is_not_renewed_into_another_org(
    auth: Auth, http: FakeHttp, control: Control
) -> None:
    await sign_in(auth)
    control.acts_in = "org_own"
    with pytest.raises(Refusal) as refused:
        await auth.renewed(FIRST)
    assert refused.value.reason == "org_changed"
    assert auth.credentials().access_token == "access-1"


OTHERS = {
    "another org": Credentials("usr_1", "org_2", "ses_1", "", "access-of-theirs", NOW + 999, "refresh-9"),
    "another person": Credentials("usr_2", "org_1", "ses_2", "", "access-of-theirs", NOW + 999, "refresh-9"),
}


@pytest.mark.parametrize("other", OTHERS)
async def test_no_later_attempt_of_a_call_is_made_as_somebody_else(
    auth: Auth, http: FakeHttp, control: Control, store: FileCredentialStore, other: str
) -> None:
    """Another process switches the org, or signs in another person, while a call waits for its next attempt."""
    await sign_in(auth)
    sent: list[str] = []

    class Busy:
        async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> HttpAnswer:
            sent.append(headers["Authorization"])
            store.save(OTHERS[other])
            return HttpAnswer(503, connect_error(Refusal("unavailable", "busy", retry_after_ms=1)))

        async def get(self, url: str) -> HttpAnswer:
            raise NotImplementedError

    request, response = session_service_pb2.GetCallerRequest(), session_service_pb2.GetCallerResponse
    with pytest.raises(Refusal) as refused:
        await Edge("http://edge.test", Busy(), "oa-test/0").call("x/Y", request, response, auth, attempts=3)
    assert refused.value.reason == "unavailable"
    assert sent == ["Bearer access-0"] * 3


@pytest.mark.parametrize("other", OTHERS)
async def test_an_expired_token_is_not_replaced_by_that_of_somebody_else(
    auth: Auth, http: FakeHttp, control: Control, store: FileCredentialStore, other: str
) -> None:
    await sign_in(auth)
    edge = Edge("http://edge.test", http, "oa-test/0")
    request, response = session_service_pb2.GetCallerRequest(), session_service_pb2.GetCallerResponse
    control.number = 1  # so the token has expired
    http.release.clear()
    http.called.clear()
    calling = asyncio.create_task(edge.call("x/GetCaller", request, response, auth))
    async with asyncio.timeout(PATIENCE_S):
        await http.called.wait()
    store.save(OTHERS[other])
    http.release.set()
    with pytest.raises(Refusal) as refused:
        await calling
    assert refused.value.reason == "org_changed"
    assert http.count("GetCaller") == 1
    assert auth.credentials() == OTHERS[other]
