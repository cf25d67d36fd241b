"""Signing in with an e-mail code or a provider, and staying signed in, with one refresh at a time for all callers."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from oa_base.refusal import Refusal
from oa_client.core.refusals import needs_sign_in
from oa_client.edge.calls import ATTEMPTS, AccessToken, Edge
from openagents.control.v1 import auth_service_pb2 as pb
from openagents.control.v1 import provider_sign_in_service_pb2 as provider_pb
from openagents.control.v1 import session_service_pb2 as session_pb

_SERVICE = "openagents.control.v1.AuthService"
_PROVIDERS = "openagents.control.v1.ProviderSignInService"
_PAGES = ("https://", "http://")
_SESSIONS = "openagents.control.v1.SessionService"
REFRESH_TIMEOUT_MS = 20_000
"""Maximum time that the edge may take for a refresh. It is shorter than any client waits, so that the edge has given up
a request before its client sends the next one."""
_NOT_ACCEPTED = "invalid_token"
"""The reason of an edge that has other keys than the one that gave the refresh token. The session is kept: it is
accepted again once the edge has its keys back."""
REFRESH_MARGIN_S = 30.0
"""A token that expires within this time is renewed before it is used."""


@dataclass(frozen=True)
class Credentials:
    """A session on this device. `access_expires_at`: seconds since 1970, by this device's clock. `repr` shows no
    token."""

    user_id: str
    org_id: str
    session_id: str
    email: str
    access_token: str
    access_expires_at: float
    refresh_token: str

    def __repr__(self) -> str:
        return f"Credentials({self.user_id}, {self.session_id})"


class CredentialStore(Protocol):
    """Keeps the credentials of one site on this device."""

    def load(self) -> Credentials | None:
        """Return the current credentials; another process may have renewed them."""

    def save(self, credentials: Credentials) -> None:
        """Replace the credentials durably, whole or not at all. Raises Refusal if that can't be done.

        Callers use no part of them before this has returned, because the first use tells the server that the previous
        refresh token is no longer needed.
        """

    def clear(self) -> None:
        """Forget the credentials."""

    def exclusive(self) -> AbstractAsyncContextManager[None]:
        """Return the lock that is held while the credentials are renewed, and that excludes other processes, too."""


@dataclass(frozen=True)
class Challenge:
    """A sign-in whose code is on its way to `email`, the address as the server keeps it."""

    challenge_id: str
    email: str
    resend_after_ms: int


@dataclass(frozen=True)
class ProviderSignIn:
    """A sign-in that continues at `url` in a browser. `expires_at`: seconds since 1970, by this device's clock.
    `repr` shows only its id."""

    sign_in_id: str
    url: str
    state: str
    expires_at: float

    def __repr__(self) -> str:
        return f"ProviderSignIn({self.sign_in_id})"

    def require_own(self, state: str) -> None:
        """Raise Refusal `challenge_expired` if the answer with this `state` belongs to another sign-in."""
        if not hmac.compare_digest(self.state.encode(), state.encode()):
            message = "the provider's answer belongs to another sign-in; start again, and use the newest page"
            raise Refusal("challenge_expired", message)


class Auth:
    """The session of one person on one device; implements `oa_client.edge.calls.AccessTokens`."""

    renewed_after = frozenset({"token_expired", "org_changed"})
    """A session that was revoked never comes back."""

    def __init__(self, edge: Edge, store: CredentialStore, device_id: str) -> None:
        self._edge = edge
        self._store = store
        self._renewal: asyncio.Task[Credentials] | None = None
        self.device_id = device_id

    def credentials(self) -> Credentials:
        """The credentials of the person who is signed in. Raises Refusal `missing_authorization` if nobody is."""
        credentials = self._store.load()
        if credentials is None:
            raise Refusal("missing_authorization", f"nobody is signed in at {self._edge.base_url}; run `oa login`")
        return credentials

    async def start(self, email: str) -> Challenge:
        """Have a code sent. Raises Refusal `rate_limited`, `invalid_value`."""
        request = pb.StartChallengeRequest(email=email, device_id=self.device_id)
        answer = await self._edge.call(f"{_SERVICE}/StartChallenge", request, pb.StartChallengeResponse)
        return Challenge(answer.challenge_id, answer.email or email, answer.resend_after_ms)

    async def verify(self, challenge: Challenge, code: str) -> Credentials:
        """Exchange the code for a session, and keep it. Raises Refusal `code_incorrect`, `challenge_expired`, …"""

        async def exchange(refresh_token: str) -> Credentials:
            request = pb.VerifyChallengeRequest(
                challenge_id=challenge.challenge_id,
                code=code.strip(),
                device_id=self.device_id,
                refresh_token=refresh_token,
            )
            answer = await self._edge.call(f"{_SERVICE}/VerifyChallenge", request, pb.VerifyChallengeResponse)
            return self._of_session(answer, challenge.email)

        return await self._enter(exchange)

    async def _enter(self, exchange: Callable[[str], Awaitable[Credentials]]) -> Credentials:
        """Exchange a proof of the person's identity, and keep the credentials. The session that is kept here continues
        if it is the same person's; nobody refreshes it meanwhile."""
        async with self._store.exclusive():
            kept = self._store.load()
            credentials = await exchange(kept.refresh_token if kept else "")
            self._store.save(credentials)
        return credentials

    async def start_with(self, provider: str, redirect_uri: str) -> ProviderSignIn:
        """Begin a sign-in with a provider, whose answer comes to `redirect_uri`. Raises Refusal `not_found`,
        `invalid_value`, `rate_limited`, `provider_unavailable`."""
        request = provider_pb.StartProviderSignInRequest(
            provider=provider, device_id=self.device_id, redirect_uri=redirect_uri
        )
        method, response = f"{_PROVIDERS}/StartProviderSignIn", provider_pb.StartProviderSignInResponse
        answer = await self._edge.call(method, request, response)
        if not answer.authorization_url.startswith(_PAGES):
            # The URL is passed to a program that would open other things as well.
            raise Refusal("malformed_message", "the site named no web page to sign in on; tell whoever runs it")
        expires_at = self._edge.by_our_clock(answer.expire_time)
        return ProviderSignIn(answer.sign_in_id, answer.authorization_url, answer.state, expires_at)

    async def finish(self, begun: ProviderSignIn, state: str, code: str) -> Credentials:
        """Exchange the provider's answer for a session, and keep it. Raises Refusal `challenge_expired`,
        `provider_refused`, `account_not_admitted`, …"""
        begun.require_own(state)

        async def exchange(refresh_token: str) -> Credentials:
            request = provider_pb.FinishProviderSignInRequest(
                sign_in_id=begun.sign_in_id,
                device_id=self.device_id,
                state=state,
                code=code,
                refresh_token=refresh_token,
            )
            method, response = f"{_PROVIDERS}/FinishProviderSignIn", provider_pb.FinishProviderSignInResponse
            answer = await self._edge.call(method, request, response)
            return self._of_session(answer, answer.email)

        return await self._enter(exchange)

    async def switch_org(self, org_id: str) -> None:
        """Act in another of the person's orgs from now on. Raises Refusal `not_found`, `org_deleted`."""
        method, request = f"{_SESSIONS}/SwitchOrg", session_pb.SwitchOrgRequest(org_id=org_id)
        try:
            await self._edge.call(method, request, session_pb.SwitchOrgResponse, self, attempts=ATTEMPTS)
        except Refusal as refusal:
            # An attempt whose answer was lost has switched the org: the next one came with a token of the previous org.
            if refusal.reason != "org_changed" or self.credentials().org_id != org_id:
                raise
        if self.credentials().org_id != org_id:
            await self.catch_up()

    async def catch_up(self, left_org_id: str = "") -> None:
        """Adopt the org that the session acts in now; with `left_org_id`, only if the credentials name that org."""
        credentials = self.credentials()
        if left_org_id in ("", credentials.org_id):
            await self._renew(credentials.access_token)

    def forget(self) -> None:
        """Forget the session on this device; the server is not told."""
        self._store.clear()

    async def current(self) -> AccessToken:
        """See `AccessTokens`."""
        credentials = self.credentials()
        token = _token_of(credentials)
        if credentials.access_expires_at - REFRESH_MARGIN_S > self._edge.now():
            return token
        return await self.renewed(token)

    async def renewed(self, rejected: AccessToken) -> AccessToken:
        """See `AccessTokens`. However many callers wait, only one refresh is made."""
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew(rejected.value))
        # Shielded: a caller that gives up must not take the answer from the others.
        renewed = _token_of(await asyncio.shield(self._renewal))
        _require_same_holder(rejected, renewed)
        return renewed

    async def _renew(self, rejected: str) -> Credentials:
        async with self._store.exclusive():
            credentials = self.credentials()
            if credentials.access_token != rejected:
                return credentials  # another process was quicker
            request = pb.RefreshSessionRequest(refresh_token=credentials.refresh_token, device_id=self.device_id)
            try:
                answer = await self._edge.call(
                    f"{_SERVICE}/RefreshSession", request, pb.RefreshSessionResponse, timeout_ms=REFRESH_TIMEOUT_MS
                )
            except Refusal as refusal:
                if refusal.reason == _NOT_ACCEPTED:
                    message = f"the session was not accepted ({refusal.reason}); try again, or sign in with `oa login`"
                    raise Refusal("reauth_required", message) from None
                if needs_sign_in(refusal):
                    self._store.clear()
                    message = f"the session has ended ({refusal.reason}); sign in again with `oa login`"
                    raise Refusal("reauth_required", message) from None
                raise
            renewed = self._with_tokens(credentials, answer.tokens)
            self._store.save(renewed)
            return renewed

    def _of_session(
        self, answer: pb.VerifyChallengeResponse | provider_pb.FinishProviderSignInResponse, email: str
    ) -> Credentials:
        nameless = Credentials(answer.user_id, answer.org_id, answer.session_id, email, "", 0.0, "")
        return self._with_tokens(nameless, answer.tokens)

    def _with_tokens(self, credentials: Credentials, tokens: pb.SessionTokens) -> Credentials:
        return replace(
            credentials,
            org_id=tokens.org_id or credentials.org_id,
            access_token=tokens.access_token,
            access_expires_at=self._edge.by_our_clock(tokens.access_expire_time),
            refresh_token=tokens.refresh_token,
        )


def _token_of(credentials: Credentials) -> AccessToken:
    return AccessToken(credentials.access_token, credentials.user_id, credentials.org_id)


def _require_same_holder(before: AccessToken, now: AccessToken) -> None:
    """Raises Refusal `org_changed`: another process may have switched the org, or have signed in somebody else."""
    if now.user_id != before.user_id:
        message = f"{now.user_id} has signed in here, and {before.user_id} no longer is; try again as {now.user_id}"
    elif now.org_id != before.org_id:
        message = (
            f"the session acts in {now.org_id} now, and no longer in {before.org_id}; "
            "look with `oa org list`, and try again"
        )
    else:
        return
    raise Refusal("org_changed", message)
