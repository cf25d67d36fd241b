"""The cache finds new keys, doesn't ask too often, and works without control."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from oa_base.refusal import Refusal
from oa_platform.auth.jwks import JWKS_PATH, MAX_JWKS_BYTES, JwksCache
from oa_platform.auth.keys import SigningKey, generate_key, to_jwks
from oa_platform.config.shared import JwksSettings
from oa_testing.clock import FakeClock
from oa_testing.waiting import eventually

SETTINGS = JwksSettings(
    control_url="http://127.0.0.1:8080",
    cache_file=None,
    refresh_interval_s=300,
    min_refresh_interval_s=2,
    fetch_timeout_s=1,
)


class Control:
    """Control's edge."""

    def __init__(self) -> None:
        self.keys: list[SigningKey] = [generate_key()]
        self.up = True
        self.body: bytes | None = None
        self.requests = 0

    async def handle(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == JWKS_PATH
        self.requests += 1
        await asyncio.sleep(0)
        if not self.up:
            raise httpx.ConnectError("refused")
        body = self.body if self.body is not None else json.dumps(to_jwks(key.public_key for key in self.keys)).encode()
        return httpx.Response(200, content=body)


@pytest.fixture
def control() -> Control:
    return Control()


def _cache(control: Control, clock: FakeClock, file: Path | None = None) -> JwksCache:
    return JwksCache(replace(SETTINGS, cache_file=file), clock, httpx.MockTransport(control.handle))


async def _unavailable(cache: JwksCache, kid: str) -> None:
    with pytest.raises(Refusal) as caught:
        await cache.public_key(kid)
    assert caught.value.reason == "unavailable"


async def test_keys_are_fetched_at_the_start_and_kept(control: Control, clock: FakeClock) -> None:
    async with _cache(control, clock) as cache:
        for _ in range(3):
            assert await cache.public_key(control.keys[0].kid) is not None
        await cache.check()
    assert control.requests == 1


async def test_a_fetch_that_takes_its_time_and_fails_is_made_once_for_all(control: Control, clock: FakeClock) -> None:
    async with _cache(control, clock) as cache:
        await clock.advance(2)

        async def silent(request: httpx.Request) -> httpx.Response:
            control.requests += 1
            await clock.advance(3)  # longer than the pause between two fetches
            raise httpx.ReadTimeout("nothing came")

        cache._transport = httpx.MockTransport(silent)
        before = control.requests
        await asyncio.gather(*(_unavailable(cache, f"unknown {number}") for number in range(10)))
        assert control.requests == before + 1


async def test_an_unknown_key_makes_it_ask_once_for_all(control: Control, clock: FakeClock) -> None:
    async with _cache(control, clock) as cache:
        new = generate_key()
        control.keys.append(new)
        await clock.advance(2)
        found = await asyncio.gather(*(cache.public_key(new.kid) for _ in range(10)))
        assert None not in found
        assert control.requests == 2


async def test_unknown_keys_dont_make_it_ask_too_often(control: Control, clock: FakeClock) -> None:
    async with _cache(control, clock) as cache:
        for number in range(20):
            assert await cache.public_key(f"made-up-{number}") is None
        assert control.requests == 1
        await clock.advance(2)
        assert await cache.public_key("made-up") is None
        assert control.requests == 2


async def test_a_key_that_control_withdraws_is_gone_after_the_interval(control: Control, clock: FakeClock) -> None:
    async with _cache(control, clock) as cache:
        old = control.keys.pop()
        control.keys.append(generate_key())
        await clock.advance(300)
        assert await cache.public_key(old.kid) is None
        assert await cache.public_key(control.keys[0].kid) is not None


async def test_known_keys_work_while_control_is_down(control: Control, clock: FakeClock) -> None:
    async with _cache(control, clock) as cache:
        control.up = False
        await clock.advance(900)
        assert await cache.public_key(control.keys[0].kid) is not None
        await _unavailable(cache, "another")


async def test_a_restart_while_control_is_down_still_has_the_keys(
    control: Control, clock: FakeClock, tmp_path: Path
) -> None:
    file = tmp_path / "new folder" / "jwks.json"
    async with _cache(control, clock, file):
        pass
    control.up = False
    async with _cache(control, clock, file) as cache:
        await cache.check()
        assert await cache.public_key(control.keys[0].kid) is not None
        await _unavailable(cache, "another")
    assert [path.name for path in file.parent.iterdir()] == ["jwks.json"]


async def test_without_any_key_it_is_not_ready_and_keeps_trying(control: Control, clock: FakeClock) -> None:
    control.up = False
    async with _cache(control, clock) as cache:
        with pytest.raises(Refusal) as caught:
            await cache.check()
        assert caught.value.reason == "unavailable"
        await _unavailable(cache, control.keys[0].kid)
        control.up = True
        await clock.advance(2)
        await cache.check()


@pytest.mark.parametrize("body", [b"", b"{}", b'{"keys":[]}', b"<html>", b"[" * 10_000, b" " * (MAX_JWKS_BYTES + 1)])
async def test_a_broken_answer_changes_nothing(control: Control, clock: FakeClock, body: bytes) -> None:
    async with _cache(control, clock) as cache:
        control.body = body
        await clock.advance(300)
        assert control.requests == 2
        assert await cache.public_key(control.keys[0].kid) is not None


@pytest.mark.parametrize("content", ["", "{", '{"keys": 1}'])
async def test_a_broken_file_is_as_none(control: Control, clock: FakeClock, tmp_path: Path, content: str) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(content)
    async with _cache(control, clock, file) as cache:
        await cache.check()
    assert json.loads(file.read_text())["keys"]


async def test_a_file_that_cant_be_written_is_no_obstacle(control: Control, clock: FakeClock, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    async with _cache(control, clock, tmp_path / "taken" / "jwks.json") as cache:
        await cache.check()


@pytest.mark.parametrize("piece", [b" ", b" " * MAX_JWKS_BYTES], ids=["slow", "large"])
async def test_an_answer_without_an_end_is_given_up(control: Control, clock: FakeClock, piece: bytes) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 50 * MAX_JWKS_BYTES:
            sent += len(piece)
            yield piece
            await asyncio.sleep(0.001)

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=endless())

    limited = replace(SETTINGS, fetch_timeout_s=0.05 if len(piece) == 1 else 60)
    async with JwksCache(limited, clock, httpx.MockTransport(answer)) as cache:
        assert sent <= 3 * MAX_JWKS_BYTES
        await _unavailable(cache, "any")
        cache._transport = httpx.MockTransport(control.handle)
        await clock.advance(2)
        assert await cache.public_key(control.keys[0].kid) is not None


async def test_a_refresh_that_breaks_is_not_the_last_one(clock: FakeClock) -> None:
    control = Control()

    async def breaks_once(request: httpx.Request) -> httpx.Response:
        if control.requests == 1:
            control.requests += 1
            raise RuntimeError("can't start new thread")
        return await control.handle(request)

    async with JwksCache(SETTINGS, clock, httpx.MockTransport(breaks_once)) as cache:
        old = control.keys[0].kid
        await clock.advance(SETTINGS.refresh_interval_s)
        await eventually(lambda: control.requests == 2)
        control.keys = [generate_key()]
        await clock.advance(SETTINGS.refresh_interval_s)
        await eventually(lambda: control.requests == 3)
        assert await cache.public_key(old) is None
        assert await cache.public_key(control.keys[0].kid) is not None


async def test_a_file_whose_place_can_not_be_looked_at_is_as_none(control: Control, clock: FakeClock) -> None:
    async with _cache(control, clock, Path("x" * 300)) as cache:
        await cache.check()
