"""The quick part of Autobahn's cases; `make autobahn` runs all of them."""

import pytest

from oa_khala import frames
from oa_testing.waiting import PATIENCE_S
from services.khala_gateway.tests.harness import Client, T, running
from tests.autobahn import suite

# What is left out sends megabytes, or waits for seconds before it sends on. Of compression one case of each kind is in.
LONG = ("6.*", "9.*", "12.*", "13.*")
COMPRESSION = ("12.1.4", "12.1.11", "12.2.4", "12.3.4", "12.4.4", "12.5.4", *(f"13.{kind}.4" for kind in range(1, 8)))
QUICK = (*(group for group in suite.GROUPS if group not in LONG), "6.1.*", "6.2.*", "6.3.*", "7.1.5", *COMPRESSION)
CASES = 100


@pytest.mark.timeout(4 * PATIENCE_S)
@pytest.mark.filterwarnings("ignore:unclosed file .*kosoku:ResourceWarning")  # it leaves its own files to the collector
async def test_whatever_a_client_sends_is_answered_as_rfc_6455_says() -> None:
    found = await suite.results(QUICK)
    assert suite.defects(found) == []
    assert len(found) > CASES
    assert {case.case_id for case in found} >= set(COMPRESSION)
    assert {f"{suite.group_of(case)}.*" for case in found} == set(suite.GROUPS) - {"9.*"}


async def test_compression_that_is_offered_is_declined_where_the_operator_has_not_allowed_it() -> None:
    async with running() as stack:
        client = await Client.open(stack.url, additional_headers={"Sec-WebSocket-Extensions": "permessage-deflate"})
        response = client.socket.response
        assert response is not None
        assert "Sec-WebSocket-Extensions" not in response.headers
        await client.hello(stack.token(T))
        await client.next(frames.Welcome)
        await client.follow(T)
