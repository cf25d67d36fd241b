"""The client's own files, with several processes at their first use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from oa_client.cpython import files
from oa_client.cpython.files import ClientHome
from oa_client.edge.new_ids import new_device_id


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_the_first_process_names_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    """Another process names it between this one's look and its write."""
    homes, of_others = [ClientHome(tmp_path / "c") for _ in range(2)], list[str]()

    def while_another_is_first() -> str:
        monkeypatch.setattr(files, "new_device_id", new_device_id)
        of_others.append(homes[1].device_id())
        return new_device_id()

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(files, "new_device_id", while_another_is_first)
    mine = homes[0].device_id()
    assert mine == ClientHome(tmp_path / "c").device_id()
    if links:
        assert [mine] == of_others
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["device.json"]


def test_a_device_file_that_makes_no_sense_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "device.json").write_text("{", encoding="utf-8")
    device_id = ClientHome(tmp_path).device_id()
    assert ClientHome(tmp_path).device_id() == device_id
