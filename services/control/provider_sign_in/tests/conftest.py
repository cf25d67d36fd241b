"""Fixtures of these tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from oa_platform.system.clock import SystemClock
from oa_testing.postgres import Database
from services.control.provider_sign_in.domain import ProviderRule
from services.control.provider_sign_in.door.oidc import OidcClient, OidcProvider
from services.control.provider_sign_in.tests.openid import CLIENT_ID, SECRET, OpenId, running_openid
from services.control.tests.cases import Cases, cases_on
from services.control.tests.fixtures import admin

__all__ = ["admin", "oidc", "openid", "people"]


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenId]:
    """A provider that runs while this module's tests do."""
    with running_openid() as running:
        yield running


@pytest.fixture
def openid(provider: OpenId) -> Iterator[OpenId]:
    """The provider, as each test wants to find it."""
    yield provider
    if provider.held:
        provider.held.set()
    provider.user, provider.tamper, provider.held, provider.email_in = "ada", None, None, "id_token"
    provider.answers.clear()
    provider.asked.clear()
    provider.users.clear()
    provider.users["ada"] = {"email": "Ada@Example.org", "email_verified": True}


@pytest.fixture
def oidc(openid: OpenId) -> OidcProvider:
    """The client of the provider."""
    client = OidcClient(openid.issuer, "Example", CLIENT_ID, SECRET, "client_secret_basic", timeout_s=30.0)
    return OidcProvider(client, SystemClock())


@pytest_asyncio.fixture
async def people(control_database: Database, oidc: OidcProvider) -> AsyncIterator[Cases]:
    """The use cases with the provider, over a fresh database."""
    rule = ProviderRule(link_domains=frozenset({"linked.example"}))
    async with cases_on(control_database, SystemClock(), providers={"oidc": oidc}, provider_rule=rule) as made:
        yield made
