"""Where the archive keeps its objects: the same promises from a directory and from a bucket of somebody else's S3."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Iterator
from pathlib import Path

import pytest

from oa_base.refusal import Refusal
from oa_platform.system.ids import new_id
from oa_testing.peers.fault_proxy import Direction, FaultProxy
from oa_testing.postgres import Database
from oa_testing.suite.plugin import FaultProxies
from services.runtime.archive.app.archive import ObjectMissing, Objects
from services.runtime.archive.app.spool import Spool
from services.runtime.archive.store.objects import (
    MULTIPART_BYTES,
    STAGING,
    STAGING_KEPT_S,
    DirectoryObjects,
    open_objects,
)
from services.runtime.archive.tests.archive_rig import archive_rig
from services.runtime.archive.tests.busy_store import busy_store
from services.runtime.archive.tests.s3_server import BUCKET, FORBIDDEN_BUCKET, S3Server, s3_server
from services.runtime.archive_settings import ArchiveSettings
from services.runtime.config import ReplaySettings
from services.runtime.tests.fetching import fetched
from services.runtime.tests.rig import replica, runtime_settings

NAME = "ab/abcd.jsonl.zst"
THREE_PARTS = 2 * MULTIPART_BYTES + 5


def spool_of(data: bytes) -> Spool:
    spool = Spool(1 << 30)
    spool.write(data)
    return spool


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def s3(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Server:
    """The server, and the environment of a replica that uses it."""
    for name, value in server.variables().items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
async def proxy(s3: S3Server, fault_proxies: FaultProxies, monkeypatch: pytest.MonkeyPatch) -> FaultProxy:
    """The way to the server, for that environment."""
    between = await fault_proxies("127.0.0.1", s3.port)
    for name, value in s3.variables(between.port).items():
        monkeypatch.setenv(name, value)
    return between


@pytest.fixture
def prefix() -> str:
    """A place in the bucket that no other test uses."""
    return f"{new_id('tst')}/archive"


@pytest.fixture
def url(prefix: str) -> str:
    return f"s3://{BUCKET}/{prefix}"


@pytest.fixture(params=["directory", "bucket"])
def objects(request: pytest.FixtureRequest, tmp_path: Path, s3: S3Server, url: str) -> Objects:
    return open_objects(str(tmp_path / "new" / "folder") if request.param == "directory" else url)


async def read(objects: Objects, name: str = NAME) -> bytes:
    return b"".join([piece async for piece in objects.get(name)])


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


async def refused(call: Awaitable[object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await call
    assert caught.value.reason == "unavailable"
    assert caught.value.retry_after_ms
    return caught.value


# ------------------------------------------------------------------------------------------------- what holds for both


@pytest.mark.parametrize("size", [0, 1, MULTIPART_BYTES, MULTIPART_BYTES + 1, THREE_PARTS])
async def test_an_object_comes_back_as_it_went(objects: Objects, size: int) -> None:
    data = os.urandom(size)
    await objects.put(NAME, spool_of(data))
    assert await read(objects) == data


@pytest.mark.parametrize("sizes", [(5, 6), (THREE_PARTS, 6), (5, THREE_PARTS)])
async def test_an_object_is_replaced_by_one_with_its_name(objects: Objects, sizes: tuple[int, int]) -> None:
    for size in sizes:
        data = os.urandom(size)
        await objects.put(NAME, spool_of(data))
        assert await read(objects) == data


async def test_what_is_not_there_is_missing(objects: Objects) -> None:
    await objects.put(NAME, spool_of(b"x"))
    for name in ("ab/another", "cd/another", NAME[:-1]):
        with pytest.raises(ObjectMissing):
            await read(objects, name)


def _listen_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(path))  # the path of a socket has to be short


@pytest.mark.parametrize(
    "what", ["folder", "fifo", "socket", "device", "link to itself", "link to a fifo", "no folder"]
)
async def test_what_is_no_file_is_no_object_and_nobody_waits_for_it(tmp_path: Path, what: str) -> None:
    objects, path = DirectoryObjects(tmp_path), tmp_path / NAME
    await objects.put(NAME, spool_of(b"x"))
    path.unlink()
    match what:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "socket":
            _listen_at(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "link to itself":
            path.symlink_to(path)
        case "link to a fifo":
            os.mkfifo(tmp_path / "fifo")
            path.symlink_to(tmp_path / "fifo")
        case _:
            path.parent.rmdir()
            path.parent.write_bytes(b"")
    with pytest.raises(ObjectMissing):
        await read(objects)


async def test_a_half_written_object_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full in the middle: no object, and nothing is left behind."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    objects = DirectoryObjects(tmp_path)
    await objects.put("before", spool_of(b"x"))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Refusal) as caught:
        await objects.put("object", spool_of(b"x"))
    assert caught.value.reason == "unavailable"
    assert caught.value.message == "the archive can't be reached now (ENOSPC); try again"
    assert files_in(tmp_path) == ["before"]
    with pytest.raises(ObjectMissing):
        await read(objects, "object")


async def test_what_a_killed_process_left_is_removed_and_what_another_one_writes_is_not(tmp_path: Path) -> None:
    staging = tmp_path / STAGING
    objects = DirectoryObjects(tmp_path)
    await objects.put(NAME, spool_of(b"x"))
    left, written = staging / "left", staging / "written"
    for path, idle_s in ((left, STAGING_KEPT_S + 60), (written, STAGING_KEPT_S - 60)):
        path.write_bytes(b"half")
        last = path.stat().st_mtime - idle_s
        os.utime(path, (last, last))
    await objects.put(NAME, spool_of(b"y"))
    assert list(staging.iterdir()) == [written]
    assert await read(objects) == b"y"


# ------------------------------------------------------------------------------------------------- a bucket


async def test_large_objects_go_and_come_in_parts(s3: S3Server, url: str, prefix: str) -> None:
    objects = open_objects(url)
    for size, parts, answers in ((MULTIPART_BYTES, 0, [200]), (3 * MULTIPART_BYTES, 3, [200, 206, 206])):
        await objects.put(NAME, spool_of(bytes(size)))
        assert s3.sizes(prefix) == {f"{prefix}/{NAME}": size}
        assert s3.parts(f"{prefix}/{NAME}") == parts
        before = len(s3.answers("GET", prefix))
        await read(objects)
        assert s3.answers("GET", prefix)[before:] == answers


async def test_a_bucket_without_a_prefix_is_one_too(s3: S3Server) -> None:
    name = new_id("tst")
    for url in (f"s3://{BUCKET}", f"s3://{BUCKET}/"):
        await open_objects(url).put(name, spool_of(b"x"))
        assert await read(open_objects(url), name) == b"x"
    assert s3.sizes(name) == {name: 1}


UNWELCOME = {
    "unknown key": ("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN"),
    "wrong secret": ("AWS_SECRET_ACCESS_KEY", "not-the-secret"),
    "somebody else's bucket": ("", FORBIDDEN_BUCKET),
}


@pytest.mark.parametrize("who", UNWELCOME)
async def test_whoever_may_not_use_the_bucket_hears_that_and_no_more(
    s3: S3Server, url: str, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    await open_objects(url).put(NAME, spool_of(b"x"))
    variable, value = UNWELCOME[who]
    with monkeypatch.context() as changed:
        if variable:
            changed.setenv(variable, value)
        objects = open_objects(url if variable else url.replace(BUCKET, value))
    for call in (objects.put(NAME, spool_of(b"y")), objects.put(NAME, spool_of(bytes(THREE_PARTS))), read(objects)):
        refusal = await refused(call)
        assert refusal.message == "the archive can't be reached now (PermissionDeniedError); try again"
        assert not refusal.metadata
    assert await read(open_objects(url)) == b"x"


async def test_without_its_bucket_nothing_is_known_to_be_missing(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket with another name is a setting to mend; "missing" would say that the archive lost an object."""
    objects = open_objects("s3://no-such-bucket")
    for call in (objects.put(NAME, spool_of(b"y")), objects.put(NAME, spool_of(bytes(THREE_PARTS))), read(objects)):
        await refused(call)


async def test_a_bucket_that_is_away_comes_back(proxy: FaultProxy, url: str) -> None:
    objects = open_objects(url)
    await objects.put(NAME, spool_of(b"x"))
    proxy.refuse()
    await proxy.cut()
    for call in (objects.put(NAME, spool_of(b"y")), objects.put(NAME, spool_of(bytes(THREE_PARTS))), read(objects)):
        await refused(call)
    proxy.refuse(False)
    assert await read(objects) == b"x"
    await objects.put(NAME, spool_of(b"y"))
    assert await read(objects) == b"y"


async def test_one_cut_is_not_noticed(proxy: FaultProxy, url: str) -> None:
    objects, data = open_objects(url), os.urandom(THREE_PARTS)
    for after_bytes in (1000, MULTIPART_BYTES, THREE_PARTS):
        proxy.truncate(after_bytes, Direction.TO_SERVER)
        await objects.put(NAME, spool_of(data))
        proxy.truncate(after_bytes, Direction.TO_CLIENT)
        assert await read(objects) == data


async def test_of_an_upload_that_was_cut_off_nothing_can_be_read(
    s3: S3Server, proxy: FaultProxy, url: str, prefix: str
) -> None:
    """Its parts stay with the server, which nobody could tell; the next try begins anew."""
    objects, data = open_objects(url), os.urandom(THREE_PARTS)
    proxy.delay(0.005, Direction.TO_SERVER)
    put = asyncio.create_task(objects.put(NAME, spool_of(data)))
    while proxy.forwarded_bytes[Direction.TO_SERVER] < MULTIPART_BYTES // 4:
        await asyncio.sleep(0.001)
    proxy.refuse()
    await proxy.cut()
    await refused(put)
    proxy.refuse(False)
    proxy.delay(0)
    assert s3.sizes(prefix) == {}
    assert f"{prefix}/{NAME}" in s3.unfinished_uploads()
    with pytest.raises(ObjectMissing):
        await read(objects)
    await objects.put(NAME, spool_of(data))
    assert await read(objects) == data


class UnreadableSpool(Spool):
    """Its disk fails after the first part."""

    def pieces(self) -> Iterator[bytes]:
        yield self.read(0, MULTIPART_BYTES)
        raise OSError(5, "Input/output error")


async def test_an_upload_that_can_not_go_on_is_taken_back(s3: S3Server, url: str, prefix: str) -> None:
    spool = UnreadableSpool(1 << 30)
    spool.write(bytes(THREE_PARTS))
    await refused(open_objects(url).put(NAME, spool))
    assert s3.sizes(prefix) == {}
    assert f"{prefix}/{NAME}" not in s3.unfinished_uploads()


async def test_a_bucket_that_stalls_is_away(proxy: FaultProxy, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 30 s; half a second here."""
    monkeypatch.setenv("AWS_TIMEOUT", "500ms")
    objects = open_objects(url)
    await objects.put(NAME, spool_of(b"x"))
    proxy.stall()
    for call in (objects.put("another", spool_of(b"y")), read(objects)):
        await refused(call)
    proxy.resume()
    assert await read(objects) == b"x"


@pytest.mark.parametrize("size", [1, THREE_PARTS])
async def test_a_busy_bucket_is_asked_again(s3: S3Server, url: str, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    data = os.urandom(size)
    async with busy_store(s3.port, 2) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{store.port}")
        await open_objects(url).put(NAME, spool_of(data))
        assert store.busy == 0
        store.busy = 2
        assert await read(open_objects(url)) == data
        store.busy = 1000
        await refused(read(open_objects(url)))
        assert store.busy == 1000 - 4, "once, and three times again"


# ------------------------------------------------------------------------------------------------- the whole way


async def test_runs_are_archived_in_a_bucket_and_read_back(
    runtime_database: Database, tmp_path: Path, s3: S3Server, url: str, prefix: str
) -> None:
    """By a pass of the archiver, and by another replica, for a person."""
    async with archive_rig(runtime_database, tmp_path) as rig:
        before = [await fetched(rig.runtime, rig.who, run_id) for run_id in rig.runs]
        assert await rig.archiver(open_objects(url)).archive_page() == 3
        assert [await rig.events(run_id) for run_id in rig.runs] == [0, 0, 0]
        archived = [await rig.records.find(run_id) for run_id in rig.runs]
        assert set(s3.sizes(prefix)) == {f"{prefix}/{one.object}" for one in archived if one}
        settings = runtime_settings(
            runtime_database, archive=ArchiveSettings(url=url), replay=ReplaySettings(page_bytes=100)
        )
        async with replica(settings, rig.who.key) as other:
            assert [await fetched(other, rig.who, run_id) for run_id in rig.runs] == before


async def test_while_the_bucket_is_away_runs_stay_in_the_log(
    runtime_database: Database, tmp_path: Path, proxy: FaultProxy, url: str
) -> None:
    async with archive_rig(runtime_database, tmp_path) as rig:
        run_id = rig.runs[0]
        archiver = rig.archiver(open_objects(url))
        proxy.refuse()
        await refused(archiver.archive_run(run_id))
        assert (await rig.events(run_id), await rig.records.find(run_id)) == (5, None)
        proxy.refuse(False)
        assert await archiver.archive_run(run_id) is True
        assert await rig.events(run_id) == 0
