"""Every import contract is seen to bite on a small copy of our rooms, and to allow what the rooms are for."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.house.files import REPO

RULES = (REPO / ".importlinter").read_text("utf-8")
SERVICES = ("control", "khala_gateway", "projector", "runtime")
FEATURE_MODULES = ("app", "domain", "door", "limits", "metrics", "store", "ws_door")
PLATFORM_ROOMS = (
    *("auth", "config", "frames", "health", "http"),
    *("postgres", "process", "rpc", "system", "tasks", "telemetry"),
)
WORKER_ROOMS = ("adapters", "agents", "sdk")
LOCALSTACK_ROOMS = ("installation", "postgres", "processes")
KHALA_ROOMS = ("client", "server")
KHALA_MODULES = ("cursors", "feed", "frames", "topics", "wire")
TOPICS_MODULES = ("history", "servicer", "store", "watcher")
CLIENT_ROOMS = ("core", "cpython", "edge", "follow", "proofs", "sdk")
CLIENT_MODULES = ("client", "transport", "follow/items", "follow/updates", "proofs/event_lines", "proofs/pins")
LIBRARIES = (
    "oa_base",
    "oa_client",
    "oa_fanout",
    "oa_khala",
    "oa_localstack",
    "oa_platform",
    "oa_runlog",
    "oa_testing",
    "oa_topics",
    "oa_wire",
    "oa_worker",
)

ROOMS_RULE = "Libraries are layered"
PLATFORM_ROOMS_RULE = "The platform has rooms"
WORKER_ROOMS_RULE = "A worker's adapters"
LOCALSTACK_ROOMS_RULE = "The local stack has rooms"
KHALA_ROOMS_RULE = "The two halves of Khala"
CLIENT_ROOMS_RULE = "The client core has rooms"
EVERY_SURFACE_RULE = "What only CPython has"
SERVICES_RULE = "Services meet over the contracts"
SERVICE_LIBRARIES_RULE = "Services use the platform"
FEATURES_RULE = "features have an order"
FEATURE_ROOMS_RULE = "Every feature of a service has the same rooms"
PRIVATE_ROOMS_RULE = "A feature uses another through its app"
PURE_RULE = "Pure rooms hold"
GENERATED_RULE = "Generated types stop"
BETTERPROTO_RULE = "betterproto models"
SQL_RULE = "SQL lives in store"


def _rooms(tmp_path: Path) -> Path:
    """Empty packages with the names of ours, and our contracts."""
    shutil.copy(REPO / ".importlinter", tmp_path)
    packages = [tmp_path / "apps" / "cli", *(tmp_path / "libs" / name for name in LIBRARIES)]
    packages += [tmp_path / "libs" / "oa_runlog" / room for room in ("proof", "wire")]
    packages += [tmp_path / "libs" / "oa_client" / room for room in CLIENT_ROOMS]
    packages += [tmp_path / "libs" / "oa_khala" / room for room in KHALA_ROOMS]
    packages += [tmp_path / "libs" / "oa_localstack" / room for room in LOCALSTACK_ROOMS]
    packages += [tmp_path / "libs" / "oa_platform" / room for room in PLATFORM_ROOMS]
    packages += [tmp_path / "libs" / "oa_worker" / room for room in WORKER_ROOMS]
    packages += [tmp_path / "services" / service / "tests" for service in SERVICES]
    packages += [tmp_path / feature / "tests" for feature in _features()]
    for package in packages:
        package.mkdir(parents=True, exist_ok=True)
    for folder in [path for path in tmp_path.rglob("*") if path.is_dir()]:
        if folder != tmp_path / "libs":
            (folder / "__init__.py").touch()
    modules = [tmp_path / "libs" / "oa_client" / module for module in CLIENT_MODULES]
    modules += [tmp_path / "libs" / "oa_khala" / module for module in KHALA_MODULES]
    modules += [tmp_path / "libs" / "oa_topics" / module for module in TOPICS_MODULES]
    modules += [
        tmp_path / "services" / service / name for service in SERVICES for name in ("__main__", "config", "wiring")
    ]
    modules += [tmp_path / feature / module for feature in _features() for module in FEATURE_MODULES]
    for module in modules:
        module.with_suffix(".py").touch()
    (tmp_path / "services" / "runtime" / "new_epoch.py").touch()
    return tmp_path


def _features() -> list[str]:
    """The folders of all features, as our contracts list them."""
    return [found.replace(".", "/") for found in re.findall(r"^ +(services\.\w+\.\w+)$", RULES, re.M)]


def _lint(rooms: Path) -> dict[str, str]:
    """What import-linter says of each contract that is broken."""
    program = Path(sys.executable).with_name("lint-imports")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(rooms), str(rooms / "libs")]), "COLUMNS": "400"}
    done = subprocess.run(
        [str(program), "--no-cache"],
        cwd=rooms,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Contracts: " in done.stdout, done.stdout + done.stderr
    titles_and_texts = re.split(r"^(.+)\n-+\n", done.stdout.partition("\nBroken contracts\n")[2], flags=re.M)[1:]
    broken = dict(zip(titles_and_texts[::2], titles_and_texts[1::2], strict=True))
    assert f", {len(broken)} broken." in done.stdout, done.stdout
    return broken


ALLOWED = {
    "services/runtime/__main__.py": "import services.runtime.config, services.runtime.wiring, oa_platform",
    "services/runtime/new_epoch.py": "import services.runtime.authority.store, asyncio",
    "services/runtime/wiring.py": "from services.runtime import config\nfrom services.runtime.log import door, store",
    "services/runtime/config.py": "import oa_platform, services.runtime.log.limits",
    "services/runtime/log/door.py": "import services.runtime.log.app, openagents, grpc, oa_runlog.wire",
    "services/runtime/log/store.py": "import services.runtime.log.app, asyncpg, oa_platform",
    "services/runtime/log/app.py": "from services.runtime.log import domain, metrics\nimport asyncio, oa_runlog",
    "services/runtime/log/domain.py": "import services.runtime.authority.domain, oa_runlog, hashlib, dataclasses",
    "services/runtime/archive/app.py": "from services.runtime.receipts import app",
    "services/runtime/log/tests/test_x.py": "import oa_testing, asyncpg, random, services.runtime.archive.store",
    "services/runtime/tests/test_x.py": "import oa_testing, asyncpg, random, openagents, services.runtime.config",
    "services/control/sign_in/domain.py": "import oa_khala, services.control.policy.domain",
    "services/khala_gateway/sockets/ws_door.py": "import services.khala_gateway.connections.app, websockets",
    "libs/oa_runlog/wire/events.py": "import openagents, oa_base",
    "libs/oa_runlog/proof/signing.py": "import cryptography",
    "libs/oa_khala/wire.py": "import openagents",
    "libs/oa_base/catalogue.py": "import openagents, oa_base",
    "libs/oa_platform/postgres/pool.py": "import asyncpg, openagents, oa_base, asyncio",
    "libs/oa_client/cpython/x.py": "import websockets, os, sqlite3, oa_client.client, oa_client.proofs",
    "libs/oa_client/client.py": "import oa_client.proofs, oa_client.edge, oa_client.follow, openagents",
    "libs/oa_client/follow/x.py": "import asyncio, random, oa_khala.wire, oa_client.transport, oa_client.core",
    "libs/oa_localstack/postgres/x.py": "import asyncpg, oa_platform",
    "libs/oa_testing/suite/plugin.py": "import oa_localstack, asyncpg, apps.cli",
    "apps/cli/main.py": "import oa_client, oa_worker, oa_localstack, oa_runlog",
}


class Case(NamedTuple):
    """An import, or a module without a place (an empty `text`), that a rule refuses."""

    path: str
    text: str
    rule: str

    @property
    def said(self) -> str:
        """The line of the report."""
        module = _module(self.path)
        return f"- {module} -> {self.imports} (l." if self.text else f"- {module}\n"

    @property
    def imports(self) -> str:
        """What is imported."""
        return self.text.removeprefix("import ")

    def disturbs(self, other: "Case") -> bool:
        """Whether the two can't stand in one copy: in one module, or one imports what the other has planted."""
        ways = ((self, other), (other, self))
        return any(_module(a.path) == _module(b.path) or _is_within(_module(a.path), b.imports) for a, b in ways)


CASES = (
    Case("libs/oa_base/x.py", "import oa_wire", ROOMS_RULE),
    Case("libs/oa_wire/x.py", "import oa_khala", ROOMS_RULE),
    Case("libs/oa_khala/wire.py", "import oa_runlog", ROOMS_RULE),
    Case("libs/oa_platform/rpc/x.py", "import oa_client", ROOMS_RULE),
    Case("libs/oa_platform/rpc/x.py", "import services.control.orgs.app", ROOMS_RULE),
    Case("libs/oa_client/core/x.py", "import oa_localstack", ROOMS_RULE),
    Case("libs/oa_localstack/postgres/x.py", "import oa_testing", ROOMS_RULE),
    Case("apps/cli/x.py", "import services.control.orgs.app", ROOMS_RULE),
    Case("libs/oa_khala/server/x.py", "import oa_khala.client", KHALA_ROOMS_RULE),
    Case("libs/oa_khala/feed.py", "import oa_khala.server", KHALA_ROOMS_RULE),
    Case("libs/oa_khala/frames.py", "import oa_khala.wire", KHALA_ROOMS_RULE),
    Case("libs/oa_client/core/x.py", "import oa_client.transport", CLIENT_ROOMS_RULE),
    Case("libs/oa_client/edge/x.py", "import oa_client.follow", CLIENT_ROOMS_RULE),
    Case("libs/oa_client/follow/x.py", "import oa_client.proofs", CLIENT_ROOMS_RULE),
    Case("libs/oa_client/proofs/x.py", "import oa_client.client", CLIENT_ROOMS_RULE),
    Case("libs/oa_client/client.py", "import oa_client.cpython", CLIENT_ROOMS_RULE),
    Case("libs/oa_client/helpers.py", "", CLIENT_ROOMS_RULE),
    Case("libs/oa_client/proofs/x.py", "import pathlib", EVERY_SURFACE_RULE),
    Case("libs/oa_client/edge/x.py", "import httpx", EVERY_SURFACE_RULE),
    Case("libs/oa_platform/config/x.py", "import oa_platform.telemetry", PLATFORM_ROOMS_RULE),
    Case("libs/oa_platform/health/x.py", "import oa_platform.postgres", PLATFORM_ROOMS_RULE),
    Case("libs/oa_platform/auth/x.py", "import oa_platform.http", PLATFORM_ROOMS_RULE),
    Case("libs/oa_platform/helpers.py", "", PLATFORM_ROOMS_RULE),
    Case("libs/oa_worker/sdk/x.py", "import oa_worker.adapters", WORKER_ROOMS_RULE),
    Case("libs/oa_localstack/postgres/x.py", "import oa_localstack.installation", LOCALSTACK_ROOMS_RULE),
    Case("libs/oa_localstack/processes/x.py", "import oa_localstack.postgres", LOCALSTACK_ROOMS_RULE),
    Case("libs/oa_localstack/helpers.py", "", LOCALSTACK_ROOMS_RULE),
    Case("services/control/orgs/app.py", "import services.runtime.log.app", SERVICES_RULE),
    Case("services/control/orgs/door.py", "import oa_client", SERVICE_LIBRARIES_RULE),
    Case("services/control/orgs/app.py", "import oa_testing", SERVICE_LIBRARIES_RULE),
    Case("services/control/orgs/app.py", "import services.control.sessions.app", FEATURES_RULE),
    Case("services/khala_gateway/feeds/app.py", "import services.khala_gateway.admission.app", FEATURES_RULE),
    Case("services/projector/journal/app.py", "import services.projector.projection.app", FEATURES_RULE),
    Case("services/runtime/log/app.py", "import services.runtime.runs.app", FEATURES_RULE),
    Case("services/runtime/log/store.py", "import services.runtime.config", FEATURES_RULE),
    Case("services/runtime/config.py", "import services.runtime.wiring", FEATURES_RULE),
    *(Case(f"services/{service}/helpers.py", "", FEATURES_RULE) for service in SERVICES),
    Case("services/runtime/log/app.py", "import services.runtime.log.store", FEATURE_ROOMS_RULE),
    Case("services/runtime/log/domain.py", "import services.runtime.log.app", FEATURE_ROOMS_RULE),
    Case("services/runtime/log/door.py", "import services.runtime.log.store", FEATURE_ROOMS_RULE),
    Case("services/runtime/log/limits.py", "import services.runtime.log.domain", FEATURE_ROOMS_RULE),
    Case("services/runtime/log/helpers.py", "", FEATURE_ROOMS_RULE),
    Case("services/khala_gateway/sources/app.py", "import services.khala_gateway.sources.door", FEATURE_ROOMS_RULE),
    Case("services/runtime/workers/app.py", "import services.runtime.log.store", PRIVATE_ROOMS_RULE),
    Case("services/runtime/workers/door.py", "import services.runtime.log.door", PRIVATE_ROOMS_RULE),
    Case("services/control/sign_in/store.py", "import services.control.sessions.store", PRIVATE_ROOMS_RULE),
    Case("services/control/config.py", "import services.control.tokens.door", PRIVATE_ROOMS_RULE),
    Case("libs/oa_khala/server/x.py", "import asyncio", PURE_RULE),
    Case("libs/oa_runlog/x.py", "import time", PURE_RULE),
    Case("libs/oa_base/x.py", "import random", PURE_RULE),
    Case("libs/oa_runlog/x.py", "import cryptography", PURE_RULE),
    Case("libs/oa_wire/x.py", "import logging", PURE_RULE),
    Case("libs/oa_client/core/x.py", "import time", PURE_RULE),
    Case("libs/oa_client/follow/items.py", "import asyncio", PURE_RULE),
    Case("services/runtime/log/domain.py", "import cryptography", PURE_RULE),
    Case("services/control/orgs/domain.py", "import secrets", PURE_RULE),
    Case("libs/oa_base/x.py", "import openagents", GENERATED_RULE),
    Case("libs/oa_khala/feed.py", "import openagents", GENERATED_RULE),
    Case("libs/oa_runlog/x.py", "import openagents", GENERATED_RULE),
    Case("services/control/orgs/app.py", "import openagents", GENERATED_RULE),
    Case("services/control/orgs/store.py", "import openagents", GENERATED_RULE),
    Case("services/runtime/log/limits.py", "import openagents", GENERATED_RULE),
    Case("apps/cli/x.py", "import openagents", GENERATED_RULE),
    Case("libs/oa_client/core/x.py", "import openagents_betterproto", BETTERPROTO_RULE),
    Case("services/control/orgs/app.py", "import asyncpg", SQL_RULE),
    Case("services/control/orgs/door.py", "import asyncpg", SQL_RULE),
    Case("services/khala_gateway/sockets/ws_door.py", "import asyncpg", SQL_RULE),
    Case("services/runtime/wiring.py", "import asyncpg", SQL_RULE),
    Case("apps/cli/x.py", "import asyncpg", SQL_RULE),
)


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, dict[str, str]]:
    """What is said of each case. Cases that don't disturb each other share a copy of the rooms: a process is dear."""
    groups: list[list[Case]] = []
    for case in CASES:
        group = next((group for group in groups if not any(map(case.disturbs, group))), None)
        if group is None:
            groups.append(group := [])
        group.append(case)
    found: dict[Case, dict[str, str]] = {}
    for group in groups:
        rooms = _rooms(tmp_path_factory.mktemp("rooms"))
        for case in group:
            (rooms / case.path).write_text(case.text + "\n", "utf-8")
        found |= dict.fromkeys(group, _lint(rooms))
    return found


def _module(path: str) -> str:
    return path.removeprefix("libs/").removesuffix(".py").replace("/", ".")


def _is_within(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def test_what_the_rooms_are_for_is_allowed(tmp_path: Path) -> None:
    rooms = _rooms(tmp_path)
    for path, text in ALLOWED.items():
        (rooms / path).parent.mkdir(exist_ok=True)
        (rooms / path).write_text(text + "\n", "utf-8")
    assert _lint(rooms) == {}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.path} {case.text}".strip())
def test_forbidden_import_is_refused(reports: dict[Case, dict[str, str]], case: Case) -> None:
    sections = [text for title, text in reports[case].items() if case.rule in title]
    # The report indents what is not a layer by more.
    assert any(case.said in re.sub(r"^-  +", "- ", text, flags=re.M) for text in sections), reports[case]


def test_every_rule_is_seen_to_bite(reports: dict[Case, dict[str, str]]) -> None:
    rules = set(re.findall(r"^name = (.+)$", RULES, re.M))
    assert {title for case in CASES for title in reports[case] if case.rule in title} == rules
