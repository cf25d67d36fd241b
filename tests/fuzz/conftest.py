"""One stack and one scene for all tests of a module."""

from collections.abc import AsyncIterator

import pytest_asyncio

from oa_testing.stack import StackUnderTest
from tests.fuzz.scene import Scene


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(shared_stack: StackUnderTest) -> AsyncIterator[Scene]:
    """Ann, Bob and a worker on a running stack."""
    async with Scene(shared_stack).set() as scene:
        yield scene
