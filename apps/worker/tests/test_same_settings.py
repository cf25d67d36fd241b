"""One variable means one thing: to the worker of a container, `oa`, and the SDK's client and worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from apps.cli.commands.local import workers
from apps.cli.program import Cli
from apps.cli.settings import CliSettings, load_settings
from apps.worker.settings import WorkerSettings
from oa_base.refusal import Refusal
from oa_client.sdk.client import Client
from oa_platform.config.loading import describe, load
from oa_worker import WorkerLimits
from oa_worker.agents import Worker

NEEDED = {"OA_CONTROL_URL": "http://127.0.0.1:9", "OA_API_KEY": "oak_test"}
READERS: dict[str, Callable[[Mapping[str, str]], object]] = {
    "container": lambda env: load(WorkerSettings, env),
    "oa": load_settings,
    "client": Client.from_env,
    "worker": lambda env: Worker.from_env(env=env),
}
OF_WORKERS = {"container", "oa", "worker"}
KNOWN_TO: dict[str, set[str]] = {
    "OA_CONTROL_URL": {*READERS},
    "OA_API_KEY": {*READERS},
    "OA_PROXY": {*READERS},
    "OA_CA_FILE": {*READERS},
    "OA_WORKER_NAME": OF_WORKERS,
    "OA_WORKER_SLOTS": OF_WORKERS,
    "OA_WORKER_DRAIN_S": OF_WORKERS,
    "OA_EXEC_ENV": OF_WORKERS - {"worker"},  # which has agents, and no commands
}
WRONG = {"OA_WORKER_SLOTS": ["0", "1001", "x"], "OA_WORKER_DRAIN_S": ["-1", "100000", "1.5"]}


def _worker_of(env: Mapping[str, str]) -> Any:
    return Worker.from_env(env={**NEEDED, **env})


def test_every_variable_of_a_worker_is_known_to_all_who_can_use_it() -> None:
    own = {one.variable for one in describe(WorkerSettings) if not one.variable.startswith("OA_LOG")}
    assert own == set(KNOWN_TO)
    assert own <= {one.variable for one in describe(CliSettings)}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("variable", ["OA_API_KEY", "OA_PROXY"])
def test_what_is_secret_may_be_in_a_file(reader: str, variable: str, tmp_path: Path) -> None:
    secret = {"OA_API_KEY": "oak_of_a_file", "OA_PROXY": "http://proxy.test:3128"}[variable]
    (tmp_path / "secret").write_text(f"{secret}\n")
    env = {name: value for name, value in NEEDED.items() if name != variable}
    assert READERS[reader]({**env, f"{variable}_FILE": str(tmp_path / "secret")})
    with pytest.raises(Refusal, match=rf"{variable}_FILE names a file that can't be read") as refused:
        READERS[reader]({**env, f"{variable}_FILE": str(tmp_path / "none")})
    assert refused.value.reason == "invalid_setting"
    with pytest.raises(Refusal) as both:
        READERS[reader]({**NEEDED, variable: secret, f"{variable}_FILE": str(tmp_path / "secret")})
    assert both.value.reason == "invalid_setting", "a secret comes from one place"


@pytest.mark.parametrize(("variable", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_what_is_wrong_is_wrong_for_all(variable: str, value: str) -> None:
    for reader in KNOWN_TO[variable]:
        with pytest.raises(Refusal) as refused:
            READERS[reader]({**NEEDED, variable: value})
        assert (refused.value.reason, refused.value.field) == ("invalid_setting", variable)


def test_what_is_set_counts_for_all_workers_and_an_argument_comes_first() -> None:
    env = {"OA_WORKER_NAME": "w", "OA_WORKER_SLOTS": "7", "OA_WORKER_DRAIN_S": "5"}
    contained, oa, sdk = load(WorkerSettings, {**NEEDED, **env}).work, load_settings(env).work, _worker_of(env)
    assert contained == oa
    assert (contained.name, contained.slots, contained.drain_s * 1000) == (
        sdk._name, sdk._slots, sdk._limits.drain_timeout_ms,
    )  # fmt: skip
    argued: Any = Worker.from_env(slots=2, env={**NEEDED, **env})
    assert argued._slots == 2
    assert load(WorkerSettings, NEEDED).work.drain_s * 1000 == _worker_of({})._limits.drain_timeout_ms


async def test_a_worker_of_oa_has_the_time_for_a_drain_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[WorkerLimits] = []

    class Told:
        def __init__(self, *_: object, limits: WorkerLimits, **more: object) -> None:
            told.append(limits)

        async def run(self) -> None:
            """It ends at once."""

    monkeypatch.setattr(workers, "Worker", Told)
    cli = Cli()
    cli.env = {**NEEDED, "OA_WORKER_DRAIN_S": "5"}  # type: ignore[assignment]
    await workers._work(cli, "w", [], 1, "oak_test")
    assert told[0].drain_timeout_ms == 5_000
