"""WorkOS, through its own SDK. The SDK is slow to import, so only an installation that uses it imports this module."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx2
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from workos import AsyncWorkOSClient, AuthorizationError, BadRequestError, UnprocessableEntityError

from oa_platform.tls.protection import outside_trust
from services.control.provider_sign_in.domain import Asked, Identity
from services.control.provider_sign_in.door.bounded import Bounded
from services.control.provider_sign_in.door.failures import refused, unavailable

_NAME = "workos"
_AUTHKIT = "authkit"
# Errors that are about our client, and not about the code that was presented.
_OF_OURS = frozenset({"invalid_client", "unauthorized_client"})


@dataclass(frozen=True)
class WorkOsClient:
    """Our client at WorkOS. `organization` is empty if people choose on AuthKit's page; `repr` shows no key."""

    label: str
    url: str
    client_id: str
    api_key: str
    organization: str
    timeout_s: float

    def __repr__(self) -> str:
        return f"WorkOsClient({self.url}, {self.client_id})"


class WorkOsProvider:
    """See `app.Provider`. Use as an async context manager."""

    def __init__(self, client: WorkOsClient) -> None:
        self._client = client
        self._http = httpx2.AsyncClient(
            transport=Bounded(httpx2.AsyncHTTPTransport(verify=outside_trust(client.url), trust_env=False)),
            trust_env=False,
            timeout=client.timeout_s,
        )
        self._sdk = AsyncWorkOSClient(
            api_key=client.api_key,
            client_id=client.client_id,
            base_url=client.url,
            # A code works only once, so a request must not be repeated.
            max_retries=0,
            http_client=self._http,
        )

    async def __aenter__(self) -> WorkOsProvider:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._sdk.close()
        await self._http.aclose()

    @property
    def label(self) -> str:
        """See `app.Provider`."""
        return self._client.label

    async def authorization_url(self, asked: Asked) -> str:
        """See `app.Provider`. WorkOS supports no nonce: PKCE binds the code to the sign-in."""
        organization = self._client.organization
        whom: dict[str, Any] = {"organization_id": organization} if organization else {"provider": _AUTHKIT}
        url: str = self._sdk.user_management.get_authorization_url(
            redirect_uri=asked.redirect_uri,
            state=asked.state,
            code_challenge=create_s256_code_challenge(asked.verifier),
            code_challenge_method="S256",
            **whom,
        )
        return url

    async def identity(self, asked: Asked, code: str) -> Identity:
        """See `app.Provider`."""
        management = self._sdk.user_management
        try:
            async with asyncio.timeout(self._client.timeout_s):
                answer = await management.authenticate_with_code(code=code, code_verifier=asked.verifier)
        except (AuthorizationError, BadRequestError, UnprocessableEntityError) as error:
            make = unavailable if isinstance(error.error, str) and error.error in _OF_OURS else refused
            raise make(_NAME, error) from None
        except Exception as error:  # noqa: BLE001 - as for OpenID Connect: WorkOS can send anything
            raise unavailable(_NAME, error) from None
        user = getattr(answer, "user", None)
        if user is None:
            # The SDK returns nothing for an answer that is not JSON.
            raise unavailable(_NAME, "no user")
        if answer.impersonator is not None:
            # An operator of WorkOS who impersonates a person is not let in as that person.
            raise refused(_NAME, "impersonated")
        return Identity(
            issuer=self._client.url,
            # The SDK doesn't check the types of what it receives.
            subject=str(user.id),
            email=str(user.email),
            email_verified=user.email_verified is True,
        )
