"""The commands of docs/operations/tls.md make files that a service takes, and that a handshake holds with."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from oa_platform.config.shared import TlsSettings
from oa_platform.system.clock import SystemClock
from oa_platform.tests.grpc_sample import LOOPBACK
from oa_platform.tests.tls_calls import ask, calling, serving
from oa_platform.tls.protection import service_protection
from oa_testing.postgres import REPOSITORY

PAGE = REPOSITORY / "docs/operations/tls.md"


def _commands(section: str) -> str:
    """The first block of commands of a section."""
    text = PAGE.read_text("utf-8").partition(f"## {section}\n")[2]
    block = re.search(r"```\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return block[1]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder in which the commands ran."""
    commands = _commands("From nothing, with openssl")
    subprocess.run(["/bin/sh", "-euc", commands], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


@pytest.mark.skipif(shutil.which("openssl") is None, reason="this machine has no openssl")
async def test_the_certificates_of_the_page_are_good_ones(made: Path) -> None:
    settings = TlsSettings(cert_file=made / "tls.crt", key_file=made / "tls.key", ca_file=made / "ca.crt")
    async with service_protection(settings, SystemClock()) as protection, serving(protection) as (_, port):
        for host in (LOOPBACK, "localhost"):
            async with calling(port, protection, host) as channel:
                assert await ask(channel) == "a"
