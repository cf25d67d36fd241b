"""The pages of the tutorial are followed as they are written: each block in its turn, with the output that it shows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from oa_testing.stack import StackUnderTest
from tests.e2e.pages import follow


@pytest.mark.parametrize("page", ["write-a-worker.md", "deploy-it.md", "call-the-api.md"])
async def test_a_page_can_be_followed(page: str, stack: StackUnderTest, tmp_path: Path) -> None:
    for tool in ("curl", "jq"):
        if page == "call-the-api.md" and shutil.which(tool) is None:
            pytest.skip(f"{tool} is not here, and the page needs it")
    await follow(page, stack, tmp_path, before="oa login --dev")
