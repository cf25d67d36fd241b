"""A process starts, says why when it can't, drains in order on a signal, and never hangs."""

import asyncio
import contextlib
import errno
import itertools
import json
import os
import pty
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from oa_base.refusal import Refusal
from oa_platform.health.readiness import Readiness
from oa_platform.http.proxies import NO_PROXY_OPTION
from oa_platform.process.descriptors import MANY
from oa_platform.process.lifecycle import EXIT_REFUSED, Process, _report
from oa_platform.process.signals import STOP_SIGNALS, _leave_terminal
from oa_testing.peers.authority import Authority
from oa_testing.plain_http import trusting_nobody
from oa_testing.postgres import DEVELOPMENT, free_port
from oa_testing.waiting import PATIENCE_S


class Service:
    """A started sample service."""

    def __init__(self, **env: str) -> None:
        self.ops_port, self.grpc_port = free_port(), free_port()
        variables = {
            "OA_OPS_ADDRESS": f"127.0.0.1:{self.ops_port}",
            "OA_GRPC_ADDRESS": f"127.0.0.1:{self.grpc_port}",
            "OA_SERVICE_TOKEN": "a token",
            **DEVELOPMENT,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "oa_platform.tests.sample_service"],
            env={**os.environ, **variables, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def readyz(self) -> httpx.Response | None:
        try:
            return httpx.get(f"http://127.0.0.1:{self.ops_port}/readyz", trust_env=False, verify=trusting_nobody())
        except httpx.HTTPError:
            return None

    def health(self) -> int | None:
        """What gRPC's health service says over a connection of its own; None when there is none to be had."""
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}", options=[NO_PROXY_OPTION]) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
            except grpc.RpcError:
                return None
        return int(answer.status)

    def until(self, status: int) -> httpx.Response:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            answer = self.readyz()
            if answer is not None and answer.status_code == status:
                return answer
            time.sleep(0.02)
        raise AssertionError(f"no answer {status}")

    def end(self) -> tuple[int, list[dict[str, Any]], list[str], str]:
        """Exit code, log records, other lines on stdout, stderr."""
        out, err = self.process.communicate(timeout=PATIENCE_S)
        lines = out.splitlines()
        records = [json.loads(line) for line in lines if line.startswith("{")]
        return self.process.returncode, records, [line for line in lines if not line.startswith("{")], err


@contextmanager
def _service(**env: str) -> Iterator[Service]:
    service = Service(**env)
    try:
        yield service
    finally:
        service.process.kill()
        service.process.wait()
        for pipe in (service.process.stdout, service.process.stderr):
            if pipe is not None:
                pipe.close()


def _drain_of(deadline_s: str) -> dict[str, str]:
    """A short drain: its windows have to lie within."""
    return dict.fromkeys(("OA_DRAIN_DEADLINE_S", "OA_GRPC_STREAM_DRAIN_S", "OA_GRPC_CALL_DRAIN_S"), deadline_s)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_drains_in_reverse_order(number: signal.Signals) -> None:
    with _service() as service:
        service.until(200)
        service.process.send_signal(number)
        code, records, lines, err = service.end()
    assert (code, err) == (0, "")
    assert lines == ["stopped second", "stopped first"]
    events = [record["event"] for record in records]
    assert events == ["grpc_listening", "running", "ready", "signal", "draining", "grpc_stopped", "stopped"]
    assert {record["service"] for record in records} == {"runtime"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the limits of another process")
def test_a_service_has_as_many_descriptors_as_it_may() -> None:
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, hard - 1), hard))
    try:
        with _service() as service:
            service.until(200)
            assert resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE) == (min(hard, MANY), hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux changes the limits of another process")
def test_a_process_without_descriptors_says_so_and_goes_on() -> None:
    with _service() as service:
        service.until(200)
        limits = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        assert service.process.stdout is not None
        said = next(line for line in service.process.stdout if "descriptors_exhausted" in line)
        assert json.loads(said)["advice"].startswith("This process has as many open as it may. Raise its limit")
        resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, limits)
        next(line for line in service.process.stdout if "descriptors_free" in line)
        service.until(200)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shows the limits of another process")
def test_a_process_that_crashes_leaves_no_core_file() -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        with _service() as service:
            service.until(200)
            assert resource.prlimit(service.process.pid, resource.RLIMIT_CORE) == (0, before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_a_service_that_listens_everywhere_is_reached_at_each_address(host: str) -> None:
    with _service() as free:
        free.process.kill()
        ports = {"OA_OPS_ADDRESS": f"{host}:{free.ops_port}", "OA_GRPC_ADDRESS": f"{host}:{free.grpc_port}"}
    with _service(**ports, OA_ALLOW_PLAINTEXT="true") as service:
        service.ops_port, service.grpc_port = free.ops_port, free.grpc_port
        service.until(200)
        for address in ("127.0.0.1", "127.0.0.2", *(["::1"] if host == "[::]" else [])):
            for port in (service.ops_port, service.grpc_port):
                socket.create_connection((address, port), PATIENCE_S).close()


def test_a_crash_says_where_it_happened() -> None:
    with _service() as service:
        service.until(200)
        service.process.send_signal(signal.SIGSEGV)
        code, _, _, err = service.end()
    assert code == -signal.SIGSEGV
    assert err.startswith("Fatal Python error: Segmentation fault")
    assert "lifecycle.py" in err


def test_what_grpc_says_about_connections_of_strangers_is_not_on_stderr(tmp_path: Path) -> None:
    """Its lines are not of the log's form, and a port scan brings one for each connection."""
    authority = Authority()
    cert_file, key_file = authority.issue().write(tmp_path)
    files = {"OA_TLS_CERT_FILE": cert_file, "OA_TLS_KEY_FILE": key_file, "OA_TLS_CA_FILE": authority.write(tmp_path)}
    with _service(**{name: str(file) for name, file in files.items()}) as service:
        while not _scanned(service):
            time.sleep(0.02)
        service.process.send_signal(signal.SIGTERM)
        code, _, _, err = service.end()
    assert (code, err) == (0, "")


def _scanned(service: Service) -> bool:
    """Whether a client without TLS reached the port and was sent away."""
    assert service.process.poll() is None
    try:
        with socket.create_connection(("127.0.0.1", service.grpc_port), PATIENCE_S) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while stranger.recv(1024):
                pass
    except ConnectionResetError:
        return True
    except ConnectionRefusedError:
        return False
    return True


def test_a_process_that_starts_is_alive_and_not_ready() -> None:
    with _service(SAMPLE_MODE="hang") as service:
        assert service.until(503).json()["failures"] == {"process": "starting"}
        service.process.send_signal(signal.SIGTERM)
        assert service.end()[0] == 0


def test_a_start_that_takes_too_long_is_given_up() -> None:
    with _service(SAMPLE_MODE="hang", OA_START_DEADLINE_S="0.3") as service:
        code, _, _, err = service.end()
    assert code == 2
    assert err == "runtime: start_failed (OA_START_DEADLINE_S): not started within 0.3 s; raise OA_START_DEADLINE_S\n"


@pytest.mark.parametrize(
    ("answers", "why"), [(False, r"(ConnectionRefusedError)"), (True, "(no answer yet)")], ids=["refuses", "is silent"]
)
def test_a_start_that_is_given_up_names_what_it_waits_for_and_why(answers: bool, why: str) -> None:
    """A database that refuses connections, and one that takes them and says nothing."""
    with socket.socket() as database:
        database.bind(("127.0.0.1", 0))
        if answers:
            database.listen()
        where = f"127.0.0.1:{database.getsockname()[1]}"
        url = f"postgresql://runtime_app:geheim@{where}/openagents"
        with _service(SAMPLE_MODE="database", OA_START_DEADLINE_S="2", OA_DATABASE_URL=url) as service:
            code, _, _, err = service.end()
    assert code == 2
    assert err.startswith("runtime: start_failed (OA_START_DEADLINE_S): not started within 2 s, because it waits for ")
    assert f"the database at {where}" in err
    assert f"{why}; raise OA_START_DEADLINE_S" in err
    assert "geheim" not in err


def test_a_refused_start_is_one_line() -> None:
    with _service(SAMPLE_MODE="refuse") as service:
        code, _, _, err = service.end()
    assert (code, err) == (2, "runtime: unavailable (OA_DATABASE_URL): The database is away.\n")


def test_a_wrong_setting_is_one_line() -> None:
    with _service(OA_LOG_LEVEL="loud") as service:
        code, _, _, err = service.end()
    assert code == 2
    assert err.startswith(
        "runtime: invalid_setting (OA_LOG_LEVEL): OA_LOG_LEVEL is 'loud', but it must be one of debug"
    )


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"OA_GRPC_STREAM_DRAIN_S": "11"}, "OA_GRPC_STREAM_DRAIN_S (11) is longer than OA_DRAIN_DEADLINE_S (10)"),
        ({"OA_GRPC_CALL_DRAIN_S": "10.5"}, "OA_GRPC_CALL_DRAIN_S (10.5) is longer than OA_DRAIN_DEADLINE_S (10)"),
        (
            {"OA_LAME_DUCK_S": "5.5", "OA_GRACE_PERIOD_S": "15"},
            "OA_LAME_DUCK_S (5.5) and OA_DRAIN_DEADLINE_S (10) together are longer than OA_GRACE_PERIOD_S (15)",
        ),
    ],
)
def test_a_stop_that_would_not_end_in_time_is_refused_at_the_start(env: dict[str, str], named: str) -> None:
    with _service(**env) as service:
        code, _, _, err = service.end()
    assert code == 2
    assert named in err


@pytest.mark.parametrize(("skew_ms", "code"), [("2500", 0), ("2501", 2)])
def test_two_services_that_are_ready_take_each_others_tokens(skew_ms: str, code: int) -> None:
    with _service(OA_CLOCK_SKEW_MAX_MS=skew_ms) as service:
        if code == 0:
            service.until(200)
            service.process.send_signal(signal.SIGTERM)
        ended, _, _, err = service.end()
    assert ended == code
    assert (f"OA_CLOCK_SKEW_MAX_MS ({skew_ms}) is more than half of OA_CLOCK_LEEWAY_MS (5000)" in err) == bool(code)


@pytest.mark.parametrize("which", ["OPS", "GRPC"])
def test_a_port_in_use_is_one_line_that_names_port_and_variable(which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with _service(**{f"OA_{which}_ADDRESS": f"127.0.0.1:{port}"}) as service:
            code, _, _, err = service.end()
    assert code == 2
    assert err.startswith(f"runtime: port_in_use (OA_{which}_ADDRESS): ")
    assert f"127.0.0.1:{port}" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("mode", "event"), [("break", "start_failed"), ("background_fails", "background_failed")])
def test_a_defect_ends_the_process_with_a_log(mode: str, event: str) -> None:
    with _service(SAMPLE_MODE=mode) as service:
        code, records, _, _ = service.end()
    assert code == 1
    (record,) = [record for record in records if record["event"] == event]
    assert "ValueError: broken" in record["exception"]


def test_a_start_that_ends_by_a_cancel_from_within_is_a_defect_and_is_drained() -> None:
    with _service(SAMPLE_MODE="canceled") as service:
        code, records, lines, err = service.end()
    assert (code, lines, err) == (1, ["stopped first"], "")
    (record,) = [record for record in records if record["event"] == "start_failed"]
    assert "nobody had asked for that" in record["exception"]


async def test_background_work_that_ends_by_a_cancel_from_within_ends_the_process() -> None:
    """Nobody would notice that it is not done any more."""

    async def work() -> None:
        helper = asyncio.create_task(asyncio.sleep(3600))
        helper.cancel()
        await helper

    async def goes_on() -> None:
        await asyncio.Event().wait()

    process = Process(Readiness(1.0))
    process.background("goes on", goes_on())
    process.background("work", work())
    async with asyncio.timeout(PATIENCE_S):
        await process.stopping.wait()
    assert process.failed
    await process.close()
    process = Process(Readiness(1.0))
    process.background("goes on", goes_on())
    await asyncio.sleep(0)
    await process.close()
    assert not process.failed


@pytest.mark.parametrize("mode", ["slow_drain", "no_drain"], ids=["one part is slow", "no part ends"])
def test_a_drain_has_a_deadline_for_all_parts_together(mode: str) -> None:
    with _service(SAMPLE_MODE=mode, **_drain_of("0.5")) as service:
        service.until(200)
        service.process.send_signal(signal.SIGTERM)
        code, records, _, _ = service.end()
    assert code == 1
    assert records[-1]["event"] == "drain_too_slow"


@pytest.mark.parametrize(
    ("first", "second"), [*itertools.permutations(STOP_SIGNALS, 2), *((each, each) for each in STOP_SIGNALS)]
)
def test_readiness_goes_first_and_a_second_signal_ends_it(first: signal.Signals, second: signal.Signals) -> None:
    with _service(SAMPLE_MODE="slow_drain", OA_DRAIN_DEADLINE_S="60") as service:
        service.until(200)
        service.process.send_signal(first)
        assert service.until(503).json()["phase"] == "draining"
        service.process.send_signal(second)
        code, records, _, err = service.end()
    assert (code, err) == (130, "")
    assert records[-1]["event"] == "second_signal"


@pytest.mark.parametrize("second", STOP_SIGNALS)
def test_two_signals_at_once_end_the_lame_duck_and_not_the_process(second: signal.Signals) -> None:
    with _service(OA_LAME_DUCK_S="600") as service:
        service.until(200)
        service.process.send_signal(signal.SIGSTOP)
        service.process.send_signal(signal.SIGTERM if second != signal.SIGTERM else signal.SIGINT)
        service.process.send_signal(second)
        service.process.send_signal(signal.SIGCONT)
        code, records, lines, _ = service.end()
    assert (code, lines) == (0, ["stopped second", "stopped first"])
    assert records[-1]["event"] == "stopped"


def test_a_thread_that_does_not_end_is_not_waited_for_beyond_the_deadline() -> None:
    with _service(SAMPLE_MODE="thread", **_drain_of("0.5")) as service:
        service.until(200)
        service.process.send_signal(signal.SIGTERM)
        code, records, lines, _ = service.end()
    assert (code, lines) == (1, ["stopped second", "stopped first"])
    assert records[-1]["event"] == "end_too_slow"


def test_a_lame_duck_takes_new_connections_until_a_second_signal() -> None:
    with _service(OA_LAME_DUCK_S="600") as service:
        service.until(200)
        assert service.health() == health_pb2.HealthCheckResponse.SERVING
        service.process.send_signal(signal.SIGTERM)
        assert service.until(503).json()["failures"] == {"process": "draining"}
        for _ in range(20):
            assert service.health() == health_pb2.HealthCheckResponse.NOT_SERVING
        service.process.send_signal(signal.SIGTERM)
        code, records, lines, _ = service.end()
    assert (code, lines) == (0, ["stopped second", "stopped first"])
    events = [record["event"] for record in records]
    assert events[-5:] == ["signal", "lame_duck", "draining", "grpc_stopped", "stopped"]
    assert service.health() is None


def test_nobody_is_refused_before_the_delay_is_over() -> None:
    delay_s = 1.0
    with _service(OA_LAME_DUCK_S=str(delay_s)) as service:
        service.until(200)
        told_at = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        while service.health() is not None:
            assert time.monotonic() < told_at + PATIENCE_S
        assert time.monotonic() - told_at >= delay_s
        assert service.end()[0] == 0


def test_a_third_signal_ends_the_drain_of_a_lame_duck() -> None:
    with _service(SAMPLE_MODE="slow_drain", OA_LAME_DUCK_S="600", OA_DRAIN_DEADLINE_S="60") as service:
        service.until(200)
        service.process.send_signal(signal.SIGTERM)
        service.until(503)
        service.process.send_signal(signal.SIGTERM)
        assert service.process.stdout is not None
        next(line for line in service.process.stdout if '"draining"' in line)
        service.process.send_signal(signal.SIGTERM)
        assert service.end()[0] == 130


def test_a_hangup_is_heard_in_a_process_without_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as full:
        full.setattr(os, "open", none_left)
        _leave_terminal()


def test_what_nohup_ignores_stays_ignored() -> None:
    with contextlib.ExitStack() as stack:
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` leaves it to its program
        try:
            service = stack.enter_context(_service())
        finally:
            signal.signal(signal.SIGHUP, before)
        service.until(200)
        service.process.send_signal(signal.SIGHUP)
        service.process.send_signal(signal.SIGTERM)
        code, records, _, _ = service.end()
    assert code == 0
    assert [record["signal"] for record in records if record["event"] == "signal"] == ["SIGTERM"]


def test_a_terminal_that_goes_away_does_not_break_the_drain(tmp_path: Path) -> None:
    """The kernel sends SIGHUP, and every word to the terminal fails from then on."""
    master, terminal = pty.openpty()
    done = tmp_path / "done"
    program = (
        "import asyncio, fcntl, os, sys, termios\n"
        "from oa_platform.process.signals import stop_signals\n"
        "os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "async def main():\n"
        "    told = asyncio.Event()\n"
        "    with stop_signals(lambda number: told.set()):\n"
        "        print('up', flush=True)\n"
        "        await told.wait()\n"
        "        print('going', flush=True); print('going', file=sys.stderr, flush=True)\n"
        f"        open({str(done)!r}, 'w').close()\n"
        "asyncio.run(main())"
    )
    argv = [sys.executable, "-c", program]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(argv, env=env, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        try:
            os.close(terminal)
            said = b""
            while not said.endswith(b"\n"):  # all of it: a terminal that goes away before breaks this word already
                said += os.read(master, 100)
            os.close(master)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
    assert said == b"up\r\n"
    assert done.exists()


def test_a_service_knows_of_no_proxy(dead_proxies: dict[str, str]) -> None:
    """For whatever its libraries call: they would take one from the environment."""
    with _service(SAMPLE_MODE="proxies", **dead_proxies) as service:
        service.until(200)
        service.process.send_signal(signal.SIGTERM)
        code, _, lines, _ = service.end()
    assert (code, lines[0]) == (0, "[]")


def test_why_a_service_did_not_start_is_one_line_that_drives_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert _report("sample", Refusal("start_failed", "It said:\n\x1b[2J\u202e")) == EXIT_REFUSED
    assert capsys.readouterr().err == r"sample: start_failed: It said: \x1b[2J\u202e" + "\n"


def test_a_variable_that_no_program_reads_is_said_with_the_one_that_was_meant() -> None:
    """It may be a limit that somebody believes to be in force. Settings of other services are none of its business."""
    with _service(OA_DRAIN_DEADLINES="3", OA_SMTP_HOST="mail.example", OA_HMAC_KEY_FILE="/none") as service:
        service.until(200)
        service.process.send_signal(signal.SIGTERM)
        _, records, _, _ = service.end()
    said = [record for record in records if record["event"] == "unknown_setting"]
    assert [(one["level"], one["variable"], one["similar"]) for one in said] == [
        ("warning", "OA_DRAIN_DEADLINES", "OA_DRAIN_DEADLINE_S")
    ]


def test_a_service_beyond_loopback_without_certificates_is_refused() -> None:
    with _service(OA_GRPC_ADDRESS="0.0.0.0:0") as service:
        code, _, _, err = service.end()
    assert code == EXIT_REFUSED
    assert err == (
        "runtime: invalid_setting (OA_GRPC_ADDRESS): OA_GRPC_ADDRESS is 0.0.0.0:0, which isn't loopback, and there is "
        "no certificate; set OA_TLS_CERT_FILE, or OA_ALLOW_PLAINTEXT=true where the network protects what is said\n"
    )


def test_a_service_that_may_use_plaintext_says_where_it_does() -> None:
    with _service(OA_GRPC_ADDRESS="0.0.0.0:0", OA_ALLOW_PLAINTEXT="true") as service:
        service.until(200)
        service.process.send_signal(signal.SIGTERM)
        code, records, _, _ = service.end()
    assert code == 0
    said = [(record["what"], record["allowed_by"]) for record in records if record["event"] == "plaintext"]
    assert said == [("OA_GRPC_ADDRESS is 0.0.0.0:0", "OA_ALLOW_PLAINTEXT")]


def test_a_service_with_a_key_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    cert_file, key_file = Authority().issue().write(tmp_path)
    key_file.chmod(0o604)
    files = {"OA_TLS_CERT_FILE": str(cert_file), "OA_TLS_KEY_FILE": str(key_file), "OA_TLS_CA_FILE": str(cert_file)}
    with _service(**files) as service:
        code, _, _, err = service.end()
    assert code == EXIT_REFUSED
    assert "OA_TLS_KEY_FILE names a file that every user of the machine can read" in err
