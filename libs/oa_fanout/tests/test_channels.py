"""Every channel carries what one says to all others, and to itself nothing; and goes on when its way was broken."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from oa_fanout.channel import Channel, Heard
from oa_fanout.nats import NatsChannel, NatsConnection
from oa_testing.peers.authority import Authority
from oa_testing.peers.listener import Listener
from oa_testing.peers.memory_channel import MemoryHub
from oa_testing.peers.nats import nats_server
from oa_testing.waiting import PATIENCE_S, eventually

Open = Callable[[Heard], Channel]
SUBJECT = "test.words"


def _ignore(_: str) -> None:
    pass


@dataclass
class Member:
    """One of those that talk."""

    open_channel: Open
    heard: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.channel = self.open_channel(self.heard.append)


@asynccontextmanager
async def members(open_channel: Open, count: int) -> AsyncIterator[list[Member]]:
    """So many that hear each other already."""
    talking = [Member(open_channel) for _ in range(count)]
    tasks = [asyncio.create_task(each.channel.run()) for each in talking]
    try:
        await all_hear(talking, "ready")
        for each in talking:
            each.heard.clear()
        yield talking
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def all_hear(talking: list[Member], text: str) -> None:
    """Each says it until all others have heard it, for the first ones may be lost; nothing of it is under way then."""
    for one in talking:
        others = [each for each in talking if each is not one]
        while not all(f"{text} {id(one)}" in each.heard for each in others):
            await one.channel.say(f"{text} {id(one)}")
            await asyncio.sleep(0.01)
        # What one says comes in its order: behind this, no repetition is still to come.
        await one.channel.say(f"no more of {id(one)}")
        while not all(each.heard[-1] == f"no more of {id(one)}" for each in others):
            await asyncio.sleep(0.01)


@asynccontextmanager
async def in_memory() -> AsyncIterator[Open]:
    yield MemoryHub().channel


@asynccontextmanager
async def over_nats() -> AsyncIterator[Open]:
    async with nats_server() as server:
        yield lambda heard: NatsChannel(server.url, SUBJECT, heard, lambda: 0.5)


@pytest.mark.parametrize("way", [in_memory, over_nats])
async def test_all_others_hear_it_in_its_order_and_whoever_says_it_does_not(
    way: Callable[[], AbstractAsyncContextManager[Open]],
) -> None:
    async with way() as open_channel, members(open_channel, 3) as (one, two, three):
        for number in range(100):
            await one.channel.say(f"word {number}")
        await eventually(lambda: len(two.heard) == len(three.heard) == 100)
        assert two.heard == three.heard == [f"word {number}" for number in range(100)]
        assert one.heard == []


@pytest.mark.parametrize("way", [in_memory, over_nats])
async def test_who_has_ended_hears_nothing_and_costs_the_others_nothing(
    way: Callable[[], AbstractAsyncContextManager[Open]],
) -> None:
    async with way() as open_channel, members(open_channel, 2) as (one, two):
        gone = Member(open_channel)
        task = asyncio.create_task(gone.channel.run())
        await all_hear([one, two, gone], "here")
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        heard = len(gone.heard)
        await one.channel.say("later")
        await eventually(lambda: "later" in two.heard)
        assert len(gone.heard) == heard
        await gone.channel.say("to nobody")


async def test_a_hub_carries_as_it_is_told_to() -> None:
    hub = MemoryHub(carry=lambda text: () if text == "lost" else (text, text))
    async with members(hub.channel, 2) as (one, two):
        for text in ("lost", "twice"):
            await one.channel.say(text)
        assert two.heard == ["twice", "twice"]


async def test_a_server_that_goes_away_is_come_back_to() -> None:
    said: list[str] = []

    def opened(heard: Heard) -> NatsChannel:
        return NatsChannel(server.url, SUBJECT, heard, lambda: 0.5, said.append)

    async with nats_server() as server, members(opened, 2) as talking:
        assert said == ["", ""]
        await server.kill()
        await eventually(lambda: len(said) >= 4)
        await talking[0].channel.say("lost")
        await server.start()
        await all_hear(talking, "again")
        assert "lost" not in talking[1].heard
        assert said[-1] == ""
        assert all(said[2:4])


async def test_a_server_that_is_not_there_yet_is_waited_for() -> None:
    why: list[str] = []
    channel = NatsChannel("nats://127.0.0.1:1", SUBJECT, _ignore, lambda: 0.5, why.append)
    task = asyncio.create_task(channel.run())
    await eventually(lambda: len(why) >= 2)
    assert not channel.connected
    assert all(why)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_server_that_wants_a_password_gets_it() -> None:
    async with nats_server("--user", "log", "--pass", "word") as server:
        right = server.url.replace("//", "//log:word@")
        async with members(lambda heard: NatsChannel(right, SUBJECT, heard, lambda: 0.5), 2):
            why: list[str] = []
            wrong = NatsChannel(server.url, SUBJECT, _ignore, lambda: 0.5, why.append)
            task = asyncio.create_task(wrong.run())
            await eventually(lambda: len(why) >= 2)
            assert all(why)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def says_why(url: str, expected: str) -> None:
    """Return once a channel to the server has said why it has no connection. It may say something else first."""
    why: list[str] = []
    task = asyncio.create_task(NatsChannel(url, SUBJECT, _ignore, lambda: 0.5, why.append).run())
    await eventually(lambda: expected in why)
    assert "" not in why
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_it_says_why_there_is_no_connection() -> None:
    async with nats_server("--user", "log", "--pass", "word") as server:
        await says_why(server.url, "AuthorizationError")
    await says_why("nats://127.0.0.1:1", "ConnectionRefusedError")


@pytest.mark.parametrize(
    "greeting",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"INFO\r\n", b"INFO []\r\n", b"INFO \xff\r\n", b"x" * (1 << 20), b""],
    ids=["another protocol", "no information", "no object", "no text", "no end of line", "nothing"],
)
async def test_what_is_no_server_of_nats_is_tried_again(greeting: bytes) -> None:
    """An address that leads elsewhere for a moment, such as to a proxy, ends no process."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await writer.drain()
        writer.close()

    why: list[str] = []
    async with Listener(answer) as server:
        url = f"nats://127.0.0.1:{server.port}"
        task = asyncio.create_task(NatsChannel(url, SUBJECT, _ignore, lambda: 0.5, why.append).run())
        await eventually(lambda: len(why) >= 2 or task.done())
        assert not task.done()
        assert all(why)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_server_with_tls_has_to_convince(tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = authority.issue().write(tmp_path)
    trusted = ssl.create_default_context(cafile=authority.write(tmp_path))
    async with nats_server("--tls", "--tlscert", str(certificate), "--tlskey", str(key)) as server:
        url = server.url.replace("nats://", "tls://")
        async with members(lambda heard: NatsChannel(url, SUBJECT, heard, lambda: 0.5, trust=lambda: trusted), 2):
            await says_why(url, "SSLCertVerificationError")


async def test_a_server_that_should_have_tls_and_has_none_is_told_nothing() -> None:
    told = bytearray()

    async def stripped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id": "S", "version": "2.10.0", "max_payload": 1048576}\r\n')
        while data := await reader.read(1024):
            told.extend(data)
        writer.close()

    async with Listener(stripped) as server:
        await says_why(f"tls://log:word@127.0.0.1:{server.port}", "SecureConnWantedError")
    assert not told


async def test_bytes_that_are_no_text_are_passed_over() -> None:
    async with (
        nats_server() as server,
        members(lambda heard: NatsChannel(server.url, SUBJECT, heard, lambda: 0.5), 2) as (one, two),
    ):
        assert isinstance(one.channel, NatsChannel)
        await one.channel._connection.publish(SUBJECT, b"\xff\xfe")
        await one.channel.say("text")
        await eventually(lambda: two.heard == ["text"])


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.005, 0.02, 0.05])
async def test_it_ends_when_it_is_cancelled_whatever_it_does(after_s: float) -> None:
    async with nats_server("--user", "log", "--pass", "word") as server:
        channel = NatsChannel(server.url, SUBJECT, _ignore, lambda: 0.0)
        task = asyncio.create_task(channel.run())
        await asyncio.sleep(after_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_connection_hears_what_is_subscribed_over_every_connection_that_it_opens() -> None:
    heard: list[tuple[str, bytes]] = []

    def hears(name: str) -> Callable[[bytes], None]:
        return lambda data: heard.append((name, data))

    async with nats_server() as server, connections(server.url) as (one, two):
        two.subscribe("a", hears("a"))
        two.subscribe("b", hears("b"))
        await until_heard(one, heard, "b")
        two.unsubscribe("a")
        two.unsubscribe("never")
        two.subscribe("c", hears("c"))
        await until_heard(one, heard, "c")
        await server.kill()
        await eventually(lambda: not one.max_bytes and not two.max_bytes)
        two.unsubscribe("b")
        two.subscribe("d", hears("d"))
        await one.publish("c", b"lost")
        await server.start()
        await eventually(lambda: bool(one.max_bytes and two.max_bytes))
        heard.clear()
        await one.publish("a", b"1")
        await one.publish("b", b"2")
        await one.publish("c", b"3")
        await one.publish("d", b"4")
        await eventually(lambda: ("d", b"4") in heard)
        await eventually(lambda: ("c", b"3") in heard)
        assert sorted(heard) == [("c", b"3"), ("d", b"4")]


async def test_what_is_too_much_for_a_server_is_lost_and_the_connection_stands() -> None:
    heard: list[tuple[str, bytes]] = []
    async with nats_server() as server, connections(server.url) as (one, two):
        two.subscribe("a", lambda data: heard.append(("a", data)))
        await until_heard(one, heard, "a")
        await one.publish("a", bytes(one.max_bytes + 1))
        await one.publish("a", b"small")
        await eventually(lambda: ("a", b"small") in heard)
        assert max(len(data) for _, data in heard) < one.max_bytes


@asynccontextmanager
async def connections(url: str) -> AsyncIterator[list[NatsConnection]]:
    """Two that stand."""
    made = [NatsConnection(url, lambda: 0.5) for _ in range(2)]
    tasks = [asyncio.create_task(each.run()) for each in made]
    try:
        await eventually(lambda: all(each.max_bytes for each in made))
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def until_heard(one: NatsConnection, heard: list[tuple[str, bytes]], subject: str) -> None:
    """Publish there until it is heard: the first ones may come before the subscription."""
    async with asyncio.timeout(PATIENCE_S):
        while subject not in {name for name, _ in heard}:
            await one.publish(subject, b"is it heard")
            await asyncio.sleep(0.01)
