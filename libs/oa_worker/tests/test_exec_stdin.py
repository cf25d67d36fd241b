"""The inputs of a run reach its command's standard input: all of them, in order, and only as fast as it reads."""

from __future__ import annotations

import asyncio
import hashlib
import os

import pytest

from oa_base.refusal import Refusal
from oa_runlog.stdin import MAX_PIECE_BYTES, StdinPiece, piece_json
from oa_testing.waiting import PATIENCE_S
from oa_worker.adapters.exec.adapter import ExecAdapter
from oa_worker.adapters.exec.stdin import Stdin
from oa_worker.tests.commands import QUICK, Log, assignment, open_files, python
from oa_worker.tests.inputs import END, Inputs
from openagents.runtime.v1 import event_pb2
from openagents.runtime.v1.event_pb2 import RunFinished

DIGEST = "import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())"


async def run(inputs: Inputs, *argv: str, log: Log | None = None) -> RunFinished:
    async with asyncio.timeout(PATIENCE_S):
        return await ExecAdapter(QUICK).run(inputs.assignment(*argv), (log or Log()).emit)


async def test_what_is_said_is_read_in_order_and_to_its_end() -> None:
    log = Log()
    pieces = ['{"text":"tw"}', '{"text":"o\\n"}', '{"base64":"/wAK"}', '{"text":"last","end":true}']
    inputs = Inputs('"one"', *pieces, '"never"')
    finish = await run(inputs, "cat", log=log)
    assert finish.outcome == event_pb2.RUN_OUTCOME_SUCCEEDED
    assert log.stdout == b"one\ntwo\n\xff\0\nlast"


async def test_what_is_said_later_is_read_when_it_comes() -> None:
    log, inputs = Log(), Inputs('"first"')
    running = asyncio.create_task(run(inputs, "cat", log=log))
    await log.first.wait()
    assert log.stdout == b"first\n"
    inputs.say('"second"')
    inputs.say(END)
    assert (await running).exec.exit_code == 0
    assert log.stdout == b"first\nsecond\n"


async def test_without_it_the_standard_input_is_empty() -> None:
    log = Log()
    async with asyncio.timeout(PATIENCE_S):
        command = assignment(*python("import sys; print(sys.stdin.read() or 'empty')"))
        finish = await ExecAdapter(QUICK).run(command, log.emit)
    assert (finish.exec.exit_code, log.stdout) == (0, b"empty\n")


async def test_characters_that_are_cut_and_lines_of_ten_megabytes_arrive_as_they_are() -> None:
    line = "ß€🌍".encode() * 1_200_000 + b"\0\n"
    cuts = range(0, len(line), MAX_PIECE_BYTES - 1)
    pieces = [StdinPiece(line[cut : cut + MAX_PIECE_BYTES - 1]) for cut in cuts]
    log = Log()
    finish = await run(Inputs(*(piece_json(piece) for piece in pieces), END), *python(DIGEST), log=log)
    assert finish.exec.exit_code == 0
    assert len(line) > 10_000_000
    assert log.stdout.decode().strip() == hashlib.sha256(line).hexdigest()


async def test_a_command_that_does_not_read_is_not_waited_for_and_little_is_read_for_it() -> None:
    inputs = Inputs(*(piece_json(StdinPiece(b"x" * MAX_PIECE_BYTES)) for _ in range(100)))
    log = Log()
    finish = await run(inputs, *python("import time; print('busy', flush=True); time.sleep(.3)"), log=log)
    assert (finish.exec.exit_code, log.stdout) == (0, b"busy\n")
    assert inputs.read_up_to <= 3, "the pipe and the buffer are full; the rest stays in the log"


async def test_a_command_that_does_not_read_is_canceled_as_any() -> None:
    inputs = Inputs(*(piece_json(StdinPiece(b"x" * MAX_PIECE_BYTES)) for _ in range(10)))
    task, log = inputs.assignment(*python("import time; print('busy', flush=True); time.sleep(600)")), Log()
    running = asyncio.create_task(ExecAdapter(QUICK).run(task, log.emit))
    await log.first.wait()
    task.cancel.request("enough", 0)
    async with asyncio.timeout(PATIENCE_S):
        assert (await running).outcome == event_pb2.RUN_OUTCOME_CANCELED


@pytest.mark.parametrize("closes", ["os.close(0)", "sys.stdin.readline(); os.close(0)"])
async def test_a_command_that_closes_it_goes_on_and_what_is_said_then_goes_nowhere(closes: str) -> None:
    code = f"import os, sys, time; {closes}; print('closed', flush=True); time.sleep(.2); print('done')"
    inputs = Inputs('"a"', *(piece_json(StdinPiece(b"x" * MAX_PIECE_BYTES)) for _ in range(10)))
    log = Log()
    finish = await run(inputs, *python(code), log=log)
    assert (finish.exec.exit_code, log.stdout) == (0, b"closed\ndone\n")


async def test_a_command_that_ends_early_leaves_the_rest_unread() -> None:
    log = Log()
    inputs = Inputs(*(piece_json(StdinPiece(b"line\n" * 10_000)) for _ in range(50)))
    finish = await run(inputs, "head", "-n", "1", log=log)
    assert (finish.exec.exit_code, log.stdout) == (0, b"line\n")


async def test_a_takeover_writes_all_of_it_again_to_the_new_process() -> None:
    inputs = Inputs('"one"', '"two"')
    first = Log()
    running = asyncio.create_task(run(inputs, "cat", log=first))
    while first.stdout != b"one\ntwo\n":
        await first.first.wait()
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    inputs.say('"three"')
    inputs.say(END)
    second = Log()
    assert (await run(inputs, "cat", log=second)).exec.exit_code == 0
    assert second.stdout == b"one\ntwo\nthree\n"


async def test_a_run_that_is_no_longer_ours_is_left() -> None:
    inputs = Inputs()
    inputs.refusal = Refusal("stale_epoch", "another worker has it")
    with pytest.raises(Refusal, match="another worker has it"):
        await run(inputs, "sleep", "600")


async def test_an_input_that_no_authority_takes_fails_the_run() -> None:
    with pytest.raises(Refusal) as refused:
        await run(Inputs("17"), "sleep", "600")
    assert (refused.value.reason, refused.value.field) == ("invalid_value", "input_json")


async def test_a_command_that_can_not_be_started_leaves_no_pipe() -> None:
    before = open_files()
    for _ in range(5):
        assert (await run(Inputs('"a"'), "no-such-command-anywhere")).reason == "command_not_found"
    assert (await run(Inputs(END), "true")).exec.exit_code == 0
    await asyncio.sleep(0)
    assert open_files() <= before


async def test_of_what_nobody_reads_little_is_kept() -> None:
    stdin, reading = await Stdin.open(1000)
    try:
        waiting = asyncio.create_task(stdin.write(b"x" * 200_000))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        stdin.close()
        async with asyncio.timeout(PATIENCE_S):
            assert await waiting is False
        assert await stdin.write(b"y") is False
    finally:
        os.close(reading)
