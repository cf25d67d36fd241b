"""Any provider that speaks OpenID Connect: the code flow with PKCE. Authlib and joserfc implement the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
from authlib.integrations.base_client.errors import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oidc.core import CodeIDToken
from authlib.oidc.discovery import get_well_known_url
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from oa_base.clock import Clock
from oa_base.refusal import Refusal
from oa_platform.tls.protection import outside_trust
from services.control.provider_sign_in.domain import Asked, Identity
from services.control.provider_sign_in.door.bounded import Bounded
from services.control.provider_sign_in.door.failures import refused, unavailable
from services.control.provider_sign_in.limits import CLOCK_LEEWAY_S, METADATA_TTL

_NAME = "oidc"
_SCOPE = "openid email"
# Algorithms with a private key. With the others, anyone who knows our secret, or anyone at all, could sign.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "EdDSA")
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_USER_INFO = "userinfo_endpoint"
# Errors of RFC 6749, 5.2, that are about us or about the provider, and not about the code that was presented.
_NOT_OF_THE_CODE = frozenset({"invalid_client", "unauthorized_client", "server_error", "temporarily_unavailable"})


@dataclass(frozen=True)
class OidcClient:
    """Our client at the provider. `secret` is empty for a public client; `repr` doesn't show it."""

    issuer: str
    label: str
    client_id: str
    secret: str
    token_auth: str
    timeout_s: float

    def __repr__(self) -> str:
        return f"OidcClient({self.issuer}, {self.client_id})"


@dataclass(frozen=True)
class _Known:
    """The provider's metadata and keys."""

    metadata: Mapping[str, Any]
    keys: KeySet
    read_at: datetime


class OidcProvider:
    """See `app.Provider`."""

    def __init__(self, client: OidcClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock
        self._known: _Known | None = None

    @property
    def label(self) -> str:
        """See `app.Provider`."""
        return self._client.label

    async def authorization_url(self, asked: Asked) -> str:
        """See `app.Provider`."""
        async with self._asking() as http:
            known = await self._provider(http)
            url, _ = http.create_authorization_url(
                known.metadata["authorization_endpoint"],
                state=asked.state,
                nonce=asked.nonce,
                code_verifier=asked.verifier,
                redirect_uri=asked.redirect_uri,
            )
            return str(url)

    async def identity(self, asked: Asked, code: str) -> Identity:
        """See `app.Provider`."""
        async with self._asking() as http:
            known = await self._provider(http)
            tokens = await http.fetch_token(
                known.metadata["token_endpoint"],
                grant_type="authorization_code",
                code=code,
                code_verifier=asked.verifier,
                redirect_uri=asked.redirect_uri,
            )
            claims = await self._claims(http, known, tokens, asked.nonce)
            if "email" not in claims and _USER_INFO in known.metadata:
                claims = await _with_user_info(http, known.metadata[_USER_INFO], claims)
        email = claims.get("email")
        return Identity(
            issuer=self._client.issuer,
            subject=claims["sub"],
            email=email if isinstance(email, str) else "",
            email_verified=claims.get("email_verified") is True,
        )

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[AsyncOAuth2Client]:
        """A client for one exchange, which is bounded in time. Its failures are raised as a Refusal."""
        ours = self._client
        try:
            async with (
                asyncio.timeout(ours.timeout_s),
                AsyncOAuth2Client(
                    client_id=ours.client_id,
                    client_secret=ours.secret or None,
                    token_endpoint_auth_method=ours.token_auth if ours.secret else "none",
                    scope=_SCOPE,
                    code_challenge_method="S256",
                    transport=Bounded(httpx2.AsyncHTTPTransport(verify=outside_trust(ours.issuer), trust_env=False)),
                    trust_env=False,
                    timeout=ours.timeout_s,
                ) as http,
            ):
                yield http
        except OAuthError as error:
            of_the_code = isinstance(error.error, str) and error.error not in _NOT_OF_THE_CODE
            make = refused if of_the_code else unavailable
            raise make(_NAME, error) from None
        except JoseError as error:
            raise refused(_NAME, error) from None
        except Refusal:
            raise
        except Exception as error:  # noqa: BLE001 - a provider can send anything, which breaks what reads it in any way
            raise unavailable(_NAME, error) from None

    async def _provider(self, http: AsyncOAuth2Client) -> _Known:
        """Return the provider's metadata and keys, read now or recently."""
        now = self._clock.now()
        if self._known is None or now - self._known.read_at >= METADATA_TTL:
            metadata = await _json(http, get_well_known_url(self._client.issuer, external=True))
            _require_usable(metadata, self._client.issuer)
            self._known = _Known(metadata, await _keys(http, metadata), now)
        return self._known

    async def _claims(
        self, http: AsyncOAuth2Client, known: _Known, tokens: Mapping[str, Any], nonce: str
    ) -> Mapping[str, Any]:
        """Return the claims of an ID token that is for us and for this sign-in."""
        id_token = tokens.get("id_token")
        if not isinstance(id_token, str):
            raise refused(_NAME, "no ID token")
        offered = known.metadata.get("id_token_signing_alg_values_supported", ["RS256"])
        algorithms = [name for name in _ALGORITHMS if name in offered]
        registry = JWSRegistry(algorithms=algorithms, strict_check_header=False)
        try:
            token = jwt.decode(id_token, known.keys, registry=registry)
        except InvalidKeyIdError:
            # The provider has a new key. Each sign-in fetches the keys at most once here.
            self._known = known = _Known(known.metadata, await _keys(http, known.metadata), known.read_at)
            token = jwt.decode(id_token, known.keys, registry=registry)
        except ValueError as error:
            raise refused(_NAME, error) from None
        claims = CodeIDToken(
            token.claims,
            token.header,
            {
                "iss": {"essential": True, "value": self._client.issuer},
                "aud": {"essential": True, "value": self._client.client_id},
            },
            {"nonce": nonce, "client_id": self._client.client_id, "access_token": tokens.get("access_token")},
        )
        claims.validate(now=int(self._clock.now().timestamp()), leeway=CLOCK_LEEWAY_S)
        return dict(claims)


def _require_usable(metadata: Mapping[str, Any], issuer: str) -> None:
    """Raises Refusal `provider_unavailable` for metadata of another issuer, or with endpoints that may not be used."""
    if metadata.get("issuer") != issuer:
        raise unavailable(_NAME, "the metadata name another issuer than OA_OIDC_ISSUER")
    secure = urlsplit(issuer).scheme == "https"
    for name in (*_ENDPOINTS, _USER_INFO) if _USER_INFO in metadata else _ENDPOINTS:
        scheme = urlsplit(str(metadata.get(name, ""))).scheme
        if scheme != "https" and (secure or scheme != "http"):
            raise unavailable(_NAME, f"{name} has no URL that can be used")


async def _keys(http: AsyncOAuth2Client, metadata: Mapping[str, Any]) -> KeySet:
    document: Any = await _json(http, metadata["jwks_uri"])
    return KeySet.import_key_set(document)


async def _json(http: AsyncOAuth2Client, url: str, *, as_person: bool = False) -> Mapping[str, Any]:
    response = await http.request("GET", url, withhold_token=not as_person)
    response.raise_for_status()
    document = response.json()
    if not isinstance(document, dict):
        raise ValueError("no JSON object")
    return document


async def _with_user_info(http: AsyncOAuth2Client, url: str, claims: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the claims with the address, which a provider may give only here (OpenID Connect Core 1.0, 5.4)."""
    user_info = await _json(http, url, as_person=True)
    if user_info.get("sub") != claims["sub"]:
        raise refused(_NAME, "user info of another subject")
    return {**claims, "email": user_info.get("email"), "email_verified": user_info.get("email_verified")}
