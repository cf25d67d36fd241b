"""Where the archive keeps its objects: the same promises from a directory and from a bucket."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from oa_errors import Refusal
from oa_testing.postgres import Database
from services.runtime.app.archive import Archive, ObjectMissing, Objects
from services.runtime.app.spool import Spool
from services.runtime.store.objects import MULTIPART_BYTES, DirectoryObjects, open_objects
from services.runtime.tests.s3_stand_in import ACCESS_KEY, StandIn, s3_stand_in
from services.runtime.tests.test_archive import archive_rig
from services.runtime.tests.test_replays import fetched

NAME = "ab/abcd.jsonl.zst"


def spool_of(data: bytes) -> Spool:
    spool = Spool(1 << 30)
    spool.write(data)
    return spool


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with s3_stand_in() as stand_in:
        variables = {
            "AWS_ENDPOINT_URL": stand_in.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": "not-checked",
            "AWS_REGION": "us-east-1",
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield stand_in


@pytest.fixture(params=["directory", "bucket"])
def objects(request: pytest.FixtureRequest, tmp_path: Path, s3: StandIn) -> Objects:
    return open_objects(str(tmp_path / "new" / "folder") if request.param == "directory" else "s3://bucket/a/prefix")


async def read(objects: Objects, name: str = NAME) -> bytes:
    return b"".join([piece async for piece in objects.get(name)])


@pytest.mark.parametrize("size", [0, 1, MULTIPART_BYTES, MULTIPART_BYTES + 1, 2 * MULTIPART_BYTES + 5])
async def test_an_object_comes_back_as_it_went(objects: Objects, size: int) -> None:
    data = os.urandom(size)
    await objects.put(NAME, spool_of(data))
    assert await read(objects) == data


async def test_an_object_is_replaced_by_one_with_its_name(objects: Objects) -> None:
    for data in (b"first", b"second"):
        await objects.put(NAME, spool_of(data))
    assert await read(objects) == b"second"


async def test_what_is_not_there_is_missing(objects: Objects) -> None:
    with pytest.raises(ObjectMissing):
        await read(objects)


async def test_large_objects_go_to_a_bucket_in_parts(s3: StandIn) -> None:
    objects = open_objects("s3://bucket/a/prefix")
    await objects.put(NAME, spool_of(b"small"))
    assert s3.uploads == 0
    await objects.put(NAME, spool_of(bytes(MULTIPART_BYTES + 1)))
    assert s3.uploads == 1
    assert set(s3.objects) == {f"/bucket/a/prefix/{NAME}"}


async def test_a_bucket_that_refuses_or_is_away_is_unavailable(s3: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = open_objects("s3://bucket")
    await objects.put(NAME, spool_of(b"x"))
    s3.failing = True
    for call in (objects.put(NAME, spool_of(b"y")), read(objects)):
        with pytest.raises(Refusal) as caught:
            await call
        assert caught.value.reason == "unavailable"
    s3.failing = False
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    for call in (open_objects("s3://bucket").put(NAME, spool_of(b"y")), read(open_objects("s3://bucket"))):
        with pytest.raises(Refusal) as caught:
            await call
        assert caught.value.reason == "unavailable"
        assert s3.url.removeprefix("http://") not in caught.value.message
    assert await read(objects) == b"x"


async def test_a_half_written_object_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full in the middle: no object, and nothing is left behind."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    objects = DirectoryObjects(tmp_path)
    with pytest.raises(Refusal) as caught:
        await objects.put("object", spool_of(b"x"))
    assert caught.value.reason == "unavailable"
    assert next(os.walk(tmp_path))[1:] == ([], [])
    with pytest.raises(ObjectMissing):
        await read(objects, "object")


async def test_runs_are_archived_in_a_bucket_and_read_back(
    runtime_database: Database, tmp_path: Path, s3: StandIn
) -> None:
    async with archive_rig(runtime_database, tmp_path) as rig:
        run_id = rig.runs[0]
        before = await fetched(rig.runtime, rig.who, run_id)
        objects = open_objects("s3://bucket/a/prefix")
        assert await rig.archiver(objects).archive_run(run_id) is True
        assert await rig.events(run_id) == 0
        archived = await rig.records.find(run_id)
        assert archived is not None
        assert list(s3.objects) == [f"/bucket/a/prefix/{archived.object}"]
        spool = await Archive(rig.records, objects, 1 << 30).fetch(run_id)
        assert spool is not None
        assert b"".join(spool.pieces()) == before
