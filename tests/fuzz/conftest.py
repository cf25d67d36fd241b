"""One stack, one identity provider and one scene for all tests of a module."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from oa_testing.stack import StackUnderTest
from services.control.provider_sign_in.tests.openid import CLIENT_ID, SECRET, OpenId, running_openid
from tests.fuzz.scene import Scene


@pytest.fixture(scope="module")
def openid() -> Iterator[OpenId]:
    """A provider that the stack, which comes after it, signs people in with."""
    with running_openid() as running, pytest.MonkeyPatch.context() as environment:
        environment.setenv("OA_OIDC_ISSUER", running.issuer)
        environment.setenv("OA_OIDC_CLIENT_ID", CLIENT_ID)
        environment.setenv("OA_OIDC_CLIENT_SECRET", SECRET)
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(openid: OpenId, shared_stack: StackUnderTest) -> AsyncIterator[Scene]:
    """Ann, Bob and a worker on a running stack."""
    async with Scene(shared_stack, openid).set() as scene:
        yield scene
