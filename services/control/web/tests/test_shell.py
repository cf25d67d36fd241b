"""The web shell: exactly what its manifest says, kept by browsers for as long as is right, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from oa_base.refusal import Refusal
from oa_testing.postgres import Database
from services.control.tests.harness import Control, reason_of, running_control
from services.control.tests.web import PAGE, SCRIPT, SCRIPT_NAME, built_shell, write_release
from services.control.web.app import Releases, verified
from services.control.web.domain import MANIFEST, File, ManifestError, is_hashed, read_manifest
from services.control.web.door import _looked_at
from services.control.web.limits import MAX_FILES, MAX_MANIFEST_BYTES

BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
OLD_NAME = "assets/app-0ld00000.js"


@asynccontextmanager
async def serving(database: Database, tmp_path: Path) -> AsyncIterator[Control]:
    """Control with a shell, and with the release before it."""
    root = built_shell(tmp_path / "new")
    before = write_release(tmp_path / "old", {"index.html": b"old page", OLD_NAME: b"old script"})
    async with running_control(
        database, tmp_path, with_runtime=False, OA_WEB_ROOT=str(root), OA_WEB_PREVIOUS_ROOTS=str(before)
    ) as control:
        yield control


async def test_files_pages_and_what_is_kept(control_database: Database, tmp_path: Path) -> None:
    async with serving(control_database, tmp_path) as control:
        script = await control.http.get(f"/{SCRIPT_NAME}", headers={"accept-encoding": "identity"})
        assert (script.status_code, script.content) == (200, SCRIPT)
        assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert script.headers["content-type"] == "text/javascript; charset=utf-8"
        assert script.headers["vary"] == "accept-encoding"
        for path in ("/", "/index.html", "/service-worker.js", "/runs/run_1/events"):
            page = await control.http.get(path, headers=BROWSER)
            assert (page.status_code, page.headers["cache-control"]) == (200, "no-store")
            assert "connect-src 'self' ws://127.0.0.1" in page.headers["content-security-policy"]
            assert page.headers["x-content-type-options"] == "nosniff"
        assert page.content == PAGE
        head = await control.http.head("/")
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(PAGE)))


async def test_a_missing_asset_is_no_page(control_database: Database, tmp_path: Path) -> None:
    async with serving(control_database, tmp_path) as control:
        for path, headers in (
            ("/assets/app-99999999.js", BROWSER),
            ("/runs/run_1", {"accept": "*/*"}),
            (f"/{SCRIPT_NAME}.gz", {"accept": "*/*"}),
            (f"/{MANIFEST}", {"accept": "*/*"}),
        ):
            missing = await control.http.get(path, headers=headers)
            assert (missing.status_code, reason_of(missing)) == (404, "not_found"), path
        posted = await control.http.post("/", content=b"x")
        assert (posted.status_code, posted.headers["allow"]) == (405, "GET, HEAD")
        method = await control.call("control.NoService/None", {})
        assert reason_of(method) == "unknown_method"


async def test_packed_forms_and_validators(control_database: Database, tmp_path: Path) -> None:
    async with serving(control_database, tmp_path) as control:
        tags = set()
        for accepted, sent in (
            ("gzip, br", "br"),
            ("gzip", "gzip"),
            ("br;q=0, gzip", "gzip"),
            ("*", "br"),
            ("identity", ""),
            ("", ""),
        ):
            async with control.http.stream("GET", f"/{SCRIPT_NAME}", headers={"accept-encoding": accepted}) as answer:
                assert answer.headers.get("content-encoding", "") == sent, accepted
                tags.add(answer.headers["etag"])
                assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert len(tags) == 3
        tag = (await control.http.get("/")).headers["etag"]
        for given in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            known = await control.http.get("/", headers={"if-none-match": given})
            assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)
        assert (await control.http.get("/", headers={"if-none-match": '"other"'})).status_code == 200
        part = await control.http.get("/", headers={"range": "bytes=0-8"})
        assert (part.status_code, part.content) == (206, PAGE[:9])


async def test_a_page_of_the_release_before_gets_its_files_and_no_more(
    control_database: Database, tmp_path: Path
) -> None:
    async with serving(control_database, tmp_path) as control:
        assert (await control.http.get(f"/{OLD_NAME}")).content == b"old script"
        assert (await control.http.get("/index.html")).content == PAGE


async def test_a_shell_that_is_not_what_its_manifest_says_is_not_served(
    control_database: Database, tmp_path: Path
) -> None:
    root = built_shell(tmp_path / "web")
    (root / SCRIPT_NAME).write_bytes(SCRIPT[:-1] + b" ")
    async with running_control(control_database, tmp_path, with_runtime=False, OA_WEB_ROOT=str(root)) as control:
        page = await control.http.get("/", headers=BROWSER)
        assert (page.status_code, reason_of(page)) == (503, "unavailable")
        assert "web" in await control.process.readiness.failures()


async def test_a_file_that_goes_away_later_is_an_error_of_the_server(
    control_database: Database, tmp_path: Path
) -> None:
    async with serving(control_database, tmp_path) as control:
        (tmp_path / "new" / SCRIPT_NAME).unlink()
        gone = await control.http.get(f"/{SCRIPT_NAME}", headers={"accept-encoding": "identity"})
        assert (gone.status_code, reason_of(gone)) == (503, "unavailable")


async def test_a_file_that_goes_away_after_it_was_looked_at_is_an_error_and_no_torn_answer(
    control_database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked_at(path: Path, file: File) -> os.stat_result:
        found = _looked_at(path, file)
        path.unlink()
        return found

    async with serving(control_database, tmp_path) as control:
        monkeypatch.setattr("services.control.web.door._looked_at", looked_at)
        answer = await control.http.get(f"/{SCRIPT_NAME}")
        assert (answer.status_code, reason_of(answer)) == (503, "unavailable")


@pytest.mark.parametrize(
    "damage", ["changed", "longer", "huge", "more", "fewer", "linked", "fifo", "folder", "manifest fifo", "no manifest"]
)
async def test_any_difference_is_found(damage: str, tmp_path: Path) -> None:
    root = built_shell(tmp_path / "web")
    verified(root)
    script = root / SCRIPT_NAME
    match damage:
        case "changed":
            script.write_bytes(b"X" + SCRIPT[1:])
        case "longer":
            script.write_bytes(SCRIPT + b" ")
        case "huge":
            os.truncate(script, 1 << 42)  # without a byte on the disk; to read it takes hours
        case "fifo":
            script.unlink()
            os.mkfifo(script)
        case "folder":
            script.unlink()
            script.mkdir()
        case "manifest fifo":
            (root / MANIFEST).unlink()
            os.mkfifo(root / MANIFEST)
        case "more":
            (root / "assets" / "more.js").write_bytes(b"")
        case "fewer":
            script.unlink()
        case "linked":
            script.rename(tmp_path / "elsewhere.js")
            script.symlink_to(tmp_path / "elsewhere.js")
        case _:
            (root / MANIFEST).unlink()
    releases = Releases(root)
    await releases.verify()
    with pytest.raises(Refusal, match="unavailable"):
        await releases.check()


GOOD = {"sha256": "0" * 64, "size": 1}


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        {"files": []},
        {"files": {"other.html": GOOD}},
        {"files": {"index.html": {"sha256": "0" * 63, "size": 1}}},
        {"files": {"index.html": {"sha256": "0" * 64, "size": -1}}},
        {"files": {"index.html": GOOD, "../secret": GOOD}},
        {"files": {"index.html": GOOD, "/etc/passwd": GOOD}},
        {"files": {"index.html": GOOD, "a//b": GOOD}},
        {"files": {"index.html": GOOD, "a\\b": GOOD}},
        {"files": {f"{number}.html": GOOD for number in range(MAX_FILES)} | {"index.html": GOOD}},
    ],
    ids=str,
)
def test_a_manifest_that_makes_no_sense_is_refused(document: object) -> None:
    with pytest.raises(ManifestError):
        read_manifest(json.dumps(document).encode())


@pytest.mark.parametrize("content", [b"[" * MAX_MANIFEST_BYTES, b'{"files":' * 100_000, b"\xff", b""], ids=len)
def test_a_manifest_that_is_no_document_is_refused(content: bytes) -> None:
    with pytest.raises(ManifestError):
        read_manifest(content)


def test_a_manifest_has_a_bound(tmp_path: Path) -> None:
    root = built_shell(tmp_path / "web")
    (root / MANIFEST).write_bytes(b" " * (MAX_MANIFEST_BYTES + 1))
    with pytest.raises(ManifestError, match="bytes"):
        verified(root)


@pytest.mark.parametrize(
    ("name", "hashed"),
    [
        ("assets/app-5f3a91c2.js", True),
        ("index-DiwrgTda.js", True),
        ("font-5f3a91c2.var.woff2", True),
        ("service-worker.js", False),
        ("date-formatting.js", False),
        ("index.html", False),
        ("v-12345678/index.html", False),
    ],
)
def test_what_is_named_by_its_content(name: str, hashed: bool) -> None:
    assert is_hashed(name) is hashed
