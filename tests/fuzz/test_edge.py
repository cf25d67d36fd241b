"""Every method of the public edge, asked wrongly in every way that its descriptor knows."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openagents.common.v1 import options_pb2
from tests.fuzz.doors import Outcome, Person
from tests.fuzz.examples import EXAMPLES
from tests.fuzz.fire import FOREIGN, Tally, foreign, fresh, under_fire
from tests.fuzz.methods import Target, all_targets
from tests.fuzz.mutate import Json, Mutation, mutations
from tests.fuzz.scene import Scene
from tests.fuzz.wire_mutate import UNKNOWN_FIELD, wire_mutations

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROTO = "application/proto"
_MAX_BODY = 1 << 20
_DELETES_CALLER = "openagents.control.v1.AccountService/DeleteAccount"


def _is_open(target: Target) -> bool:
    options = target.descriptor.GetOptions().Extensions
    return bool(
        options[options_pb2.public]
        or options[options_pb2.any_principal]
        or options[options_pb2.session_only]
        or options[options_pb2.required_scope]
    )


def _is_public(target: Target) -> bool:
    return bool(target.descriptor.GetOptions().Extensions[options_pb2.public])


OPEN = [target for target in all_targets() if _is_open(target)]
SHUT = [target for target in all_targets() if not _is_open(target)]


def _code(outcome: Outcome) -> str:
    return str(outcome.refusal.info.http_status) if outcome.refusal else ""


async def _post(scene: Scene, target: Target, body: bytes, media: str = "application/json") -> Outcome:
    caller = scene.going if target.path == _DELETES_CALLER else scene.ann
    token = "" if _is_public(target) else caller.access_token
    return await scene.edge.post(target.path, body, token, media)


async def _send(scene: Scene, target: Target, mutation: Mutation, tally: Tally) -> None:
    body = fresh(mutation.body) if mutation.may_pass else mutation.body
    outcome = await _post(scene, target, json.dumps(body).encode())
    tally.look_closer(mutation, outcome, code=_code(outcome))


def _unreadable(good: Json) -> dict[str, bytes]:
    text = json.dumps(good).encode()
    return {
        "nothing": b"",
        "half": text[:-1],
        "twice": text * 2,
        "not UTF-8": b'{"\xff\xfe": 1}',
        "a BOM": b"\xef\xbb\xbf" + text,
        "UTF-16": json.dumps(good).encode("utf-16"),
        "a key twice": b'{"a": 1, "a": 1}',
        "NaN": b"NaN",
        "lists in lists": b"[" * 100_000,
        "objects in objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        "a number of many digits": b"9" * 10_000,
        "zeros": bytes(1000),
    }


@pytest.mark.parametrize("target", OPEN, ids=str)
async def test_json(scene: Scene, target: Target) -> None:
    """Whatever is wrong is named, and harms nothing; then the good request is taken, and on record if it changes
    something in control."""
    examples = await EXAMPLES[target.path](scene, target.process)
    found = [mutation for good in examples for mutation in mutations(target.descriptor.input_type, good)]
    async with under_fire(scene, "control") as tally:
        for mutation in (one for one in found if not one.may_pass):
            await _send(scene, target, mutation, tally)
        for what, body in _unreadable(examples[0]).items():
            outcome = await _post(scene, target, body)
            tally.look(what, outcome, code="400")
    recorded = await scene.watch.recorded()
    async with under_fire(scene, "control", moves=True) as tally:
        for mutation in (one for one in found if one.may_pass):
            await _send(scene, target, mutation, tally)
    for good in examples:
        outcome = await _post(scene, target, json.dumps(good).encode())
        assert outcome.refusal is None, outcome.refusal
    assert await scene.watch.recorded() > recorded or not target.is_recorded


@pytest.mark.parametrize("target", OPEN, ids=str)
async def test_wrong_bytes_are_refused_and_harm_nothing(scene: Scene, target: Target) -> None:
    """Bytes that are no message, a field of tomorrow (as in JSON), bodies that are too large or of another type."""
    good = target.request((await EXAMPLES[target.path](scene, target.process))[0]).SerializeToString()
    async with under_fire(scene, "control") as tally:
        for mutation in wire_mutations(target.descriptor.input_type, good):
            outcome = await _post(scene, target, mutation.data, PROTO)
            tally.look(mutation, outcome, code="400")
        for media, reason in (("", "unsupported_media_type"), ("text/plain", "unsupported_media_type")):
            outcome = await _post(scene, target, good, media)
            assert outcome.refusal is not None
            tally.look(reason, outcome, code="415")
        outcome = await _post(scene, target, bytes(_MAX_BODY + 1), PROTO)
        tally.look("too large", outcome, code="413")
        outcome = await _post(scene, target, good + UNKNOWN_FIELD, PROTO)
        tally.look("a field of tomorrow", outcome, code="400")
        assert outcome.refusal is not None
        assert outcome.refusal.reason == "malformed_message"


@pytest.mark.parametrize("target", [target for target in OPEN if not _is_public(target)], ids=str)
async def test_what_belongs_to_others(scene: Scene, target: Target) -> None:
    """Somebody else's id is like nobody's, and without a token there is nothing at all."""
    examples = await EXAMPLES[target.path](scene, target.process)
    async with under_fire(scene, "control") as tally:
        for pair in (one for good in examples for one in foreign(good, scene.foreign.__getitem__)):
            outcomes = [await _post(scene, target, json.dumps(one.body).encode()) for one in pair]
            for mutation, outcome in zip(pair, outcomes, strict=True):
                if tally.look(mutation, outcome, code=_code(outcome)) and outcome.refusal:
                    assert outcome.refusal.reason in FOREIGN
            tally.alike(pair[0], *outcomes)
        body = json.dumps(examples[0]).encode()
        for token in ("", "nonsense", scene.worker.token, "a" * 9000):
            tally.look("no access token", await scene.edge.post(target.path, body, token), code="401")


@pytest.mark.parametrize("target", SHUT, ids=str)
async def test_what_is_not_open_does_not_exist(scene: Scene, target: Target) -> None:
    async with under_fire(scene, "control") as tally:
        for path in (target.path, f"/{target.path}", target.path.lower(), f"{target.path}/x"):
            outcome = await scene.edge.post(path, b"{}", scene.ann.access_token)
            tally.look(path, outcome, code="404")


async def test_bodies_that_are_packed_wrongly(scene: Scene) -> None:
    """A small body that unpacks to a huge one costs nothing."""
    target = next(target for target in OPEN if target.path.endswith("CreateRun"))
    bodies = {
        "not gzip": (b"{}", "400"),
        "half": (gzip.compress(b"{}")[:-3], "400"),
        "two members": (gzip.compress(b"{}") * 2, "400"),
        "a bomb": (gzip.compress(bytes(64 << 20), 1), "413"),
    }
    async with under_fire(scene, "control") as tally:
        for what, (body, code) in bodies.items():
            outcome = await _packed(scene, target, body, scene.ann)
            tally.look(what, outcome, code=code)


async def _packed(scene: Scene, target: Target, body: bytes, person: Person) -> Outcome:
    return await scene.edge.post(target.path, body, person.access_token, **{"content-encoding": "gzip"})


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
_NAMES = st.sampled_from(sorted({field.name for target in OPEN for field in target.descriptor.input_type.fields}))
_JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES | st.text(max_size=8), inner, max_size=4),
)


# Nothing at all is a good request to these, that ends the session that everything else here is asked in.
_END_OUR_SESSION = {f"openagents.control.v1.SessionService/{method}" for method in ("RevokeSession", "RevokeSessions")}
_ANY = st.sampled_from([target for target in OPEN if target.path not in _END_OUR_SESSION])


@settings(max_examples=150)
@given(target=_ANY, document=_JSON)
async def test_random_json_is_refused_or_taken(scene: Scene, target: Target, document: Any) -> None:
    body = json.dumps(document).encode("utf-8", "surrogatepass")
    _look(await _post(scene, target, body))


@settings(max_examples=150)
@given(target=_ANY, body=st.binary(max_size=200))
async def test_random_bytes_are_refused_or_taken(scene: Scene, target: Target, body: bytes) -> None:
    _look(await _post(scene, target, body, PROTO))


def _look(outcome: Outcome) -> None:
    tally = Tally()
    tally.look("random", outcome, may_pass=True, code=_code(outcome))
    tally.settle()
