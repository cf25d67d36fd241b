"""Which site, and whose files."""

import re
from pathlib import Path
from typing import Any

import pytest

import apps.cli.commands
from apps.cli.settings import COMMANDS_OF_PEOPLE, CliSettings, client_home, load_settings
from apps.worker.work_settings import WorkSettings
from oa_base.refusal import Refusal
from oa_localstack.installation.state import ProcessMark, StackState, write_state
from oa_worker.adapters.codex.inputs import SANDBOXES

LOCAL = "http://127.0.0.1:8080"


def _settings(**given: Any) -> CliSettings:
    return CliSettings(work=WorkSettings(), **given)


def _home(tmp_path: Path) -> Path:
    tmp_path.mkdir(exist_ok=True)
    write_state(tmp_path, StackState(ProcessMark(1, 0.0), "ready", urls={"control": LOCAL}))
    return tmp_path


def test_the_local_stack_named_by_its_address_is_the_local_stack(tmp_path: Path) -> None:
    """Who is signed in stays so when OA_CONTROL_URL is exported."""
    home = _home(tmp_path)
    beside_it = home / "client"
    for url in (None, LOCAL, f"{LOCAL}/"):
        assert client_home(_settings(home=home, control_url=url)) == beside_it


def test_another_sites_files_are_not_beside_the_local_stack(tmp_path: Path) -> None:
    home = _home(tmp_path)
    for url in ("https://agents.example", "http://127.0.0.1:8081"):
        assert home not in client_home(_settings(home=home, control_url=url)).parents
    assert client_home(_settings(home=home, client_home=tmp_path / "mine")) == tmp_path / "mine"


def test_without_a_local_stack_the_files_are_the_persons(tmp_path: Path) -> None:
    assert tmp_path not in client_home(_settings(home=tmp_path / "none")).parents
    assert tmp_path not in client_home(_settings(home=tmp_path, control_url=LOCAL)).parents


def test_commands_find_the_stack_upwards_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _home(tmp_path / ".oa")
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path / "src")
    found = load_settings({})
    assert (found.home, client_home(found)) == (tmp_path / ".oa", tmp_path / ".oa" / "client")
    assert load_settings({"OA_HOME": "another"}).home == Path("another")


def test_a_worker_may_be_given_each_sandbox_that_there_is() -> None:
    """The settings name them again: they are read without the worker's library, which takes its time."""
    for sandbox in SANDBOXES:
        assert load_settings({"OA_CODEX_SANDBOX": sandbox}).codex_sandbox == sandbox
    with pytest.raises(Refusal) as refused:
        load_settings({"OA_CODEX_SANDBOX": "none"})
    assert all(sandbox in str(refused.value) for sandbox in SANDBOXES)


@pytest.mark.parametrize(
    "url",
    ["http://user:geheim@site.example", "http://:geheim@site.example", "ftp://u:geheim@x", "http://u:geheim@[::1"],
)
def test_the_password_of_a_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(Refusal, match="OA_CONTROL_URL must be a URL like") as refused:
        load_settings({"OA_CONTROL_URL": url})
    assert "geheim" not in str(refused.value)


def test_the_commands_that_act_as_the_person_whatever_key_is_set_are_named() -> None:
    commands = Path(apps.cli.commands.__file__).parent.rglob("*.py")
    texts = [text for path in commands if "cli.site_of_person" in (text := path.read_text("utf-8"))]
    declared = [
        found for text in texts for found in re.findall(r'^@(\w+?)(?:_group)?\.command\(\s*"([a-z-]+)"', text, re.M)
    ]
    named = {f"`oa {name if group == 'oa' else group}`" for group, name in declared}
    assert set(re.findall(r"`oa \w+`", COMMANDS_OF_PEOPLE)) == named
