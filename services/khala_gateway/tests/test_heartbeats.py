"""Each connection hears from the gateway once an interval, whatever others do, and is told where its topics stand."""

import asyncio
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from oa_khala.frames import Form, Heartbeat, ServerFrame, TopicHead
from oa_khala.server.subscriptions import Served
from oa_khala.wire import decode_server_frame
from oa_testing.virtual_time import VirtualLoop, run_virtual
from services.khala_gateway.connections.app.heartbeats import MAX_TURNS, MIN_TURN_MS, Heartbeats
from services.khala_gateway.feeds.domain import encoding_of, payload_of

BEGAN_MS = 1_800_000_000_000
INTERVAL_MS = 25_000
TURN_MS = INTERVAL_MS // MAX_TURNS
SERVED: tuple[Served, ...] = ((), (("a", "e"),), (("a", "e"), ("b", "f")), (("b", "g"),))
# The clock counts whole milliseconds, and a timer may ring in the one before.
ROUNDED_MS = 2


def now_ms() -> int:
    return BEGAN_MS + int(asyncio.get_running_loop().time() * 1000)


class Client:
    """A connection, and the heartbeats that were written to it."""

    def __init__(self, number: int = 0, served: Served = ()) -> None:
        self.encoding = encoding_of((Form.PROTO, Form.JSON)[number % 2])
        self.served = served
        self.here = False
        # Since when it has heard nothing.
        self.silent_ms = 0
        self.min_silence_ms = 0
        self.beats: list[tuple[int, Heartbeat]] = []
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Take a heartbeat, which has to be for this connection, and in time."""
        assert self.here
        assert now_ms() - self.silent_ms >= self.min_silence_ms
        frame: ServerFrame = decode_server_frame(payload_of(data), self.encoding.form)
        assert isinstance(frame, Heartbeat)
        assert [(head.topic, head.epoch) for head in frame.heads] == list(self.served)
        self.written.append(data)
        self.beats.append((now_ms(), frame))
        self.silent_ms = now_ms()


class Gateway:
    """Heartbeats of a gateway whose topics all stand at `head`."""

    def __init__(self, interval_ms: int = INTERVAL_MS) -> None:
        self.head = 0
        self.heartbeats = Heartbeats(lambda name: (self.head, name == "b"), interval_ms, now_ms)

    def start(self, client: Client) -> None:
        """Greet `client`, or answer its ping."""
        client.here, client.silent_ms = True, now_ms()
        self.heartbeats.start(client)

    def stop(self, client: Client) -> None:
        """Let `client` go."""
        client.here = False
        self.heartbeats.stop(client)

    def follow(self, client: Client, served: Served) -> None:
        """Serve `client` other topics."""
        client.served = served
        self.heartbeats.changed(client)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["start", "start", "stop", "follow", "hang"]),
            st.integers(0, 4),
            st.integers(0, 3),
            st.sampled_from([0, 1, 7, TURN_MS, 3_000, INTERVAL_MS, 70_000]) | st.integers(0, 2 * INTERVAL_MS),
        ),
        max_size=20,
    ),
    st.sampled_from([INTERVAL_MS, 3_333, 120, 30]),
)
def test_no_interval_passes_in_silence(script: list[tuple[str, int, int, int]], interval_ms: int) -> None:
    async def follow_the_script() -> None:
        gateway, clients = Gateway(interval_ms), [Client(number) for number in range(5)]
        loop = cast("VirtualLoop", asyncio.get_running_loop())
        for client in clients:
            client.min_silence_ms = interval_ms - 2 * max(MIN_TURN_MS, interval_ms // MAX_TURNS) - ROUNDED_MS
        for what, number, served, wait_ms in script:
            client = clients[number]
            match what:
                case "start":
                    gateway.start(client)
                case "stop":
                    gateway.stop(client)
                case "follow":
                    gateway.follow(client, SERVED[served])
                case _:
                    for one in clients:
                        one.min_silence_ms = 0
                    loop.hang(min(wait_ms, 3 * interval_ms) / 1000)
                    await asyncio.sleep(0)
            for _ in range(5):
                await asyncio.sleep(min(wait_ms, 2 * interval_ms) / 5000)
                silent = [now_ms() - one.silent_ms for one in clients if one.here]
                assert max(silent, default=0) <= interval_ms + ROUNDED_MS

    run_virtual(follow_the_script)


def test_a_heartbeat_comes_an_interval_after_the_last_one_or_the_answer_to_a_ping() -> None:
    async def listen() -> None:
        gateway, quiet, pinging = Gateway(), Client(), Client()
        for one in (quiet, pinging):
            gateway.start(one)
        for _ in range(10):
            await asyncio.sleep(20)
            gateway.start(pinging)
        beats_s = [round((at_ms - BEGAN_MS) / 1000) for at_ms, _ in quiet.beats]
        assert beats_s[:7] == [25, 50, 75, 100, 125, 150, 175]
        assert pinging.beats == []
        await asyncio.sleep(26)
        assert len(pinging.beats) == 1

    run_virtual(listen)


def test_connections_that_came_together_and_follow_the_same_get_the_same_bytes() -> None:
    async def listen() -> None:
        gateway, clients = Gateway(), [Client(0, (("a", "e"),)) for _ in range(100)]
        for client in clients:
            gateway.start(client)
            await asyncio.sleep(TURN_MS / 1000 / 200)
        gateway.head = 7
        await asyncio.sleep(INTERVAL_MS / 1000)
        first = clients[0].written
        assert all(client.written[0] is first[0] for client in clients)
        assert clients[0].beats[0][1].heads == (TopicHead("a", 7, "e"),)

    run_virtual(listen)


def test_what_a_connection_follows_is_looked_up_when_its_heartbeat_is_due() -> None:
    async def listen() -> None:
        gateway, client, other = Gateway(), Client(0, SERVED[1]), Client(0, SERVED[1])
        gateway.start(client)
        gateway.start(other)
        for served in (SERVED[2], SERVED[0], SERVED[3]):
            await asyncio.sleep(INTERVAL_MS / 1000)
            gateway.follow(client, served)
        await asyncio.sleep(INTERVAL_MS / 1000)
        told = [frame.heads for _, frame in client.beats]
        assert told == [
            (TopicHead("a", 0, "e"),),
            (TopicHead("a", 0, "e"), TopicHead("b", 0, "f", source_away=True)),
            (),
            (TopicHead("b", 0, "g", source_away=True),),
        ]
        assert {frame.heads for _, frame in other.beats} == {(TopicHead("a", 0, "e"),)}

    run_virtual(listen)


def test_a_socket_that_fails_takes_no_heartbeat_from_others() -> None:
    async def listen() -> None:
        gateway, broken, other = Gateway(), Client(), Client()
        failures: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        gateway.start(broken)
        gateway.start(other)
        broken.here = False  # and the gateway does not know
        await asyncio.sleep(2 * INTERVAL_MS / 1000)
        assert len(failures) == len(other.beats) > 0

    run_virtual(listen)


def test_nothing_wakes_up_for_nobody() -> None:
    async def listen() -> None:
        gateway, client = Gateway(), Client()
        gateway.start(client)
        gateway.stop(client)
        woken, call_later = [0], asyncio.get_running_loop().call_later

        def counted(*arguments: object) -> asyncio.TimerHandle:
            woken[0] += 1
            return call_later(*arguments)  # type: ignore[arg-type]

        asyncio.get_running_loop().call_later = counted  # type: ignore[method-assign, assignment]
        await asyncio.sleep(INTERVAL_MS / 1000)
        assert woken == [1], "for the sleep alone"

    run_virtual(listen)
