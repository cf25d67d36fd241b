"""Every frame that a client may send, wrong in every way that its descriptor knows, at the real gateway.

Bytes that are no frames at all, and strange WebSocket, are `services/khala_gateway/tests/test_fuzz.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from websockets.exceptions import ConnectionClosed

from oa_khala.frames import Form
from tests.fuzz.doors import Outcome
from tests.fuzz.fire import under_fire
from tests.fuzz.khala import FRAME, PING, TOPIC, connected
from tests.fuzz.mutate import Json, mutations
from tests.fuzz.scene import Scene

pytestmark = pytest.mark.asyncio(loop_scope="module")

_POLICY_VIOLATION = 1008
_MAX_MESSAGE = 64 * 1024
FORMS = (Form.PROTO, Form.JSON)
"""What clients say under `khala.v2.json` is read as under `khala.v1.json`."""
BODIES = [field.name for field in FRAME.DESCRIPTOR.fields]


async def _examples(scene: Scene) -> Mapping[str, Json]:
    topic = f"user:{scene.ann.user_id}:runs"
    token = await scene.sync_token(scene.ann, topic)
    about = {"client_build_id": "fuzz/1", "protocol_version": 1, "schema_version": 1}
    cursor = {"topic": topic, "epoch": "e", "applied_seq": 0}
    return {
        "hello": {"hello": {"token": token, "device_id": scene.ann.device_id, **about}},
        "subscribe": {"subscribe": {"topics": [{"topic": topic, "cursor": cursor}]}},
        "unsubscribe": {"unsubscribe": {"topics": [topic]}},
        "refresh_token": {"refresh_token": {"token": token}},
        "ping": PING,
    }


async def _shoot(scene: Scene, form: Form, hello: Json, body: Json) -> Outcome:
    async with connected(scene, form) as client:
        try:
            if hello is not None:
                await client.say(hello)
            await client.say(body)
            await client.say(PING)
        except ConnectionClosed:
            pass  # what it said before it hung up is read below
        return await client.hear()


def _code(outcome: Outcome) -> str:
    """The close code that the refusal's reason has; the general one where it has none of its own."""
    if outcome.refusal is None or outcome.status == TOPIC:
        return outcome.status
    return str(outcome.refusal.info.close_code or _POLICY_VIOLATION)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: str(form.value))
@pytest.mark.parametrize("body", BODIES)
async def test_a_wrong_frame_ends_its_connection_and_nothing_else(scene: Scene, body: str, form: Form) -> None:
    """A wrong frame ends its connection with a typed ERROR and the close code of its reason; the gateway goes on."""
    examples = await _examples(scene)
    hello = None if body == "hello" else examples["hello"]
    every = mutations(FRAME.DESCRIPTOR, examples[body])
    sayable = (one for one in every if len(json.dumps(one.body)) < _MAX_MESSAGE)  # longer ones are RFC 6455's affair
    found = [one for one in sayable if form is Form.JSON or not one.json_only]
    async with under_fire(scene, "khala_gateway") as tally:
        for mutation in found:
            outcome = await _shoot(scene, form, hello, mutation.body)
            tally.look_closer(mutation, outcome, code=_code(outcome))
    outcome = await _shoot(scene, form, None, examples["hello"])
    assert outcome.refusal is None, outcome.refusal


async def test_what_belongs_to_others(scene: Scene) -> None:
    """A topic that the token doesn't carry is refused alone, whosever it is."""
    hello = (await _examples(scene))["hello"]
    topics = [f"run:{scene.foreign['run']}:events", f"user:{scene.bob.user_id}:runs", f"org:{scene.bob.org_id}:runs"]
    async with under_fire(scene, "khala_gateway") as tally:
        for topic in topics:
            outcome = await _shoot(scene, Form.PROTO, hello, {"subscribe": {"topics": [{"topic": topic}]}})
            tally.look(topic, outcome, code=TOPIC)
            assert outcome.refusal is not None
            assert outcome.refusal.reason == "forbidden_topic"
