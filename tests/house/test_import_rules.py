"""Every import contract is seen to bite on a small copy of our rooms, and to allow what the rooms are for."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.files import REPO

SERVICES = ("control", "khala_gateway", "projector", "runtime")
PLATFORM_ROOMS = ("auth", "config", "health", "http", "postgres", "process", "rpc", "system", "telemetry")
WORKER_ROOMS = ("adapters", "sdk")
FEATURES = {
    "runtime": (
        "archive",
        "authority",
        "log",
        "receipts",
        "replays",
        "retention",
        "runs",
        "topics",
        "whole_log",
        "workers",
    ),
}
"""Services whose capabilities are folders; the others have ROOMS."""
FEATURE_MODULES = ("app", "domain", "door", "limits", "metrics", "store")
ROOMS = ("app", "domain", "grpc_api", "http_api", "store", "ws_api")
CLIENT_ROOMS = ("core", "cpython", "edge", "follow", "proofs")
CLIENT_MODULES = ("client", "transport", "follow/items", "follow/updates", "proofs/event_lines", "proofs/pins")
LIBRARIES = (
    "oa_base",
    "oa_client",
    "oa_khala",
    "oa_localstack",
    "oa_platform",
    "oa_runlog",
    "oa_testing",
    "oa_wire",
    "oa_worker",
)

ROOMS_RULE = "Libraries are layered"
PLATFORM_ROOMS_RULE = "The platform has rooms"
WORKER_ROOMS_RULE = "A worker's adapters"
CLIENT_ROOMS_RULE = "The client core has rooms"
EVERY_SURFACE_RULE = "What only CPython has"
SERVICES_RULE = "Services meet over the contracts"
SERVICE_LIBRARIES_RULE = "Services use the platform"
SERVICE_ROOMS_RULE = "Every service has the same rooms"
RUNTIME_FEATURES_RULE = "The runtime's features have an order"
RUNTIME_ROOMS_RULE = "Every feature of the runtime has the same rooms"
RUNTIME_PRIVATE_RULE = "The runtime's features use one another's app"
PURE_RULE = "Pure rooms hold"
GENERATED_RULE = "Generated types stop"
BETTERPROTO_RULE = "betterproto models"
SQL_RULE = "SQL lives in store"


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    """Empty packages with the names of ours, and our contracts."""
    shutil.copy(REPO / ".importlinter", tmp_path)
    packages = [tmp_path / "apps" / "cli", *(tmp_path / "libs" / name for name in LIBRARIES)]
    packages += [tmp_path / "libs" / "oa_runlog" / room for room in ("proof", "wire")]
    for service in SERVICES:
        packages += [tmp_path / "services" / service / room for room in (*FEATURES.get(service, ROOMS), "tests")]
    packages += [tmp_path / "libs" / "oa_client" / room for room in CLIENT_ROOMS]
    packages += [tmp_path / "libs" / "oa_platform" / room for room in PLATFORM_ROOMS]
    packages += [tmp_path / "libs" / "oa_worker" / room for room in WORKER_ROOMS]
    for package in packages:
        package.mkdir(parents=True, exist_ok=True)
    for folder in [path for path in tmp_path.rglob("*") if path.is_dir()]:
        if folder != tmp_path / "libs":
            (folder / "__init__.py").touch()
    for module in CLIENT_MODULES:
        (tmp_path / "libs" / "oa_client" / f"{module}.py").touch()
    for service in SERVICES:
        for module in ("config.py", "__main__.py"):
            (tmp_path / "services" / service / module).touch()
    for service, features in FEATURES.items():
        for module in ("wiring", *(f"{feature}/{room}" for feature in features for room in FEATURE_MODULES)):
            (tmp_path / "services" / service / f"{module}.py").touch()
    (tmp_path / "services" / "runtime" / "new_epoch.py").touch()
    return tmp_path


def _lint(rooms: Path) -> str:
    """What import-linter says, in one line of words; it breaks lines where it likes."""
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
    words = " ".join((done.stdout + done.stderr).split())
    assert ("0 broken" in words) == (done.returncode == 0), words
    return words


ALLOWED = {
    "services/runtime/__main__.py": "import services.runtime.config, services.runtime.wiring, oa_platform",
    "services/runtime/new_epoch.py": "import services.runtime.authority.store, asyncio",
    "services/runtime/wiring.py": "from services.runtime import config\nfrom services.runtime.log import door, store",
    "services/runtime/config.py": "import oa_platform, services.runtime.log.limits",
    "services/runtime/log/door.py": "import services.runtime.log.app, openagents, grpc, oa_runlog.wire",
    "services/runtime/log/store.py": "import services.runtime.log.app, asyncpg, oa_platform",
    "services/runtime/log/app.py": "from services.runtime.log import domain, metrics\nimport asyncio, oa_runlog",
    "services/runtime/log/domain.py": "import services.runtime.authority.domain, oa_runlog, hashlib",
    "services/runtime/archive/app.py": "from services.runtime.receipts import app",
    "services/runtime/tests/test_x.py": "import oa_testing, asyncpg, random, openagents, services.runtime.config",
    "libs/oa_runlog/wire/events.py": "import openagents, oa_base",
    "libs/oa_runlog/proof/signing.py": "import cryptography",
    "libs/oa_khala/wire.py": "import openagents",
    "libs/oa_base/catalogue.py": "import openagents, oa_base",
    "libs/oa_platform/postgres/pool.py": "import asyncpg, openagents, oa_base, asyncio",
    "libs/oa_client/cpython/x.py": "import websockets, os, sqlite3, oa_client.client, oa_client.proofs",
    "libs/oa_client/client.py": "import oa_client.proofs, oa_client.edge, oa_client.follow, openagents",
    "libs/oa_client/follow/x.py": "import asyncio, random, oa_khala.wire, oa_client.transport, oa_client.core",
    "libs/oa_localstack/postgres.py": "import asyncpg, oa_platform",
    "libs/oa_testing/plugin.py": "import oa_localstack, asyncpg, apps.cli",
    "apps/cli/main.py": "import oa_client, oa_worker, oa_localstack, oa_runlog",
}


def test_what_the_rooms_are_for_is_allowed(rooms: Path) -> None:
    for path, text in ALLOWED.items():
        (rooms / path).write_text(text + "\n", "utf-8")
    assert "0 broken" in _lint(rooms)


@pytest.mark.parametrize(
    ("path", "text", "rule"),
    [
        ("libs/oa_base/x.py", "import oa_wire", ROOMS_RULE),
        ("libs/oa_wire/x.py", "import oa_khala", ROOMS_RULE),
        ("libs/oa_khala/x.py", "import oa_runlog", ROOMS_RULE),
        ("libs/oa_platform/rpc/x.py", "import oa_client", ROOMS_RULE),
        ("libs/oa_client/x.py", "import oa_localstack", ROOMS_RULE),
        ("libs/oa_platform/rpc/x.py", "import services.control.app", ROOMS_RULE),
        ("libs/oa_localstack/x.py", "import oa_testing", ROOMS_RULE),
        ("apps/cli/x.py", "import services.control.app", ROOMS_RULE),
        ("libs/oa_client/core/x.py", "import oa_client.transport", CLIENT_ROOMS_RULE),
        ("libs/oa_client/edge/x.py", "import oa_client.follow", CLIENT_ROOMS_RULE),
        ("libs/oa_client/follow/x.py", "import oa_client.proofs", CLIENT_ROOMS_RULE),
        ("libs/oa_client/proofs/x.py", "import oa_client.client", CLIENT_ROOMS_RULE),
        ("libs/oa_client/client.py", "import oa_client.cpython", CLIENT_ROOMS_RULE),
        ("libs/oa_client/helpers.py", "", CLIENT_ROOMS_RULE),
        ("libs/oa_client/proofs/x.py", "import pathlib", EVERY_SURFACE_RULE),
        ("libs/oa_client/edge/x.py", "import httpx", EVERY_SURFACE_RULE),
        ("libs/oa_platform/config/x.py", "import oa_platform.telemetry", PLATFORM_ROOMS_RULE),
        ("libs/oa_platform/health/x.py", "import oa_platform.postgres", PLATFORM_ROOMS_RULE),
        ("libs/oa_platform/auth/x.py", "import oa_platform.http", PLATFORM_ROOMS_RULE),
        ("libs/oa_platform/helpers.py", "", PLATFORM_ROOMS_RULE),
        ("libs/oa_worker/sdk/x.py", "import oa_worker.adapters", WORKER_ROOMS_RULE),
        ("services/control/app/x.py", "import services.runtime.log.app", SERVICES_RULE),
        ("services/control/grpc_api/x.py", "import oa_client", SERVICE_LIBRARIES_RULE),
        ("services/control/app/x.py", "import oa_testing", SERVICE_LIBRARIES_RULE),
        ("services/control/app/x.py", "import services.control.store", SERVICE_ROOMS_RULE),
        ("services/control/store/x.py", "import services.control.config", SERVICE_ROOMS_RULE),
        ("services/control/domain/x.py", "import services.control.app", SERVICE_ROOMS_RULE),
        ("services/control/grpc_api/x.py", "import services.control.store", SERVICE_ROOMS_RULE),
        ("services/control/helpers.py", "", SERVICE_ROOMS_RULE),
        ("services/runtime/log/app.py", "import services.runtime.runs.app", RUNTIME_FEATURES_RULE),
        ("services/runtime/runs/app.py", "import services.runtime.workers.app", RUNTIME_FEATURES_RULE),
        ("services/runtime/log/app.py", "import services.runtime.config", RUNTIME_FEATURES_RULE),
        ("services/runtime/helpers.py", "", RUNTIME_FEATURES_RULE),
        ("services/runtime/log/app.py", "import services.runtime.log.store", RUNTIME_ROOMS_RULE),
        ("services/runtime/log/domain.py", "import services.runtime.log.app", RUNTIME_ROOMS_RULE),
        ("services/runtime/log/door.py", "import services.runtime.log.store", RUNTIME_ROOMS_RULE),
        ("services/runtime/log/helpers.py", "", RUNTIME_ROOMS_RULE),
        ("services/runtime/workers/app.py", "import services.runtime.log.store", RUNTIME_PRIVATE_RULE),
        ("services/runtime/workers/door.py", "import services.runtime.log.door", RUNTIME_PRIVATE_RULE),
        ("services/runtime/log/limits.py", "import openagents", GENERATED_RULE),
        ("services/runtime/log/app.py", "import openagents", GENERATED_RULE),
        ("services/runtime/log/store.py", "import openagents", GENERATED_RULE),
        ("services/runtime/log/app.py", "import asyncpg", SQL_RULE),
        ("services/runtime/log/door.py", "import asyncpg", SQL_RULE),
        ("services/runtime/wiring.py", "import asyncpg", SQL_RULE),
        ("libs/oa_khala/x.py", "import asyncio", PURE_RULE),
        ("libs/oa_runlog/x.py", "import time", PURE_RULE),
        ("libs/oa_base/x.py", "import random", PURE_RULE),
        ("libs/oa_runlog/x.py", "import cryptography", PURE_RULE),
        ("services/runtime/log/domain.py", "import cryptography", PURE_RULE),
        ("libs/oa_wire/x.py", "import logging", PURE_RULE),
        ("libs/oa_client/core/x.py", "import time", PURE_RULE),
        ("libs/oa_client/follow/items.py", "import asyncio", PURE_RULE),
        ("services/control/domain/x.py", "import secrets", PURE_RULE),
        ("libs/oa_base/x.py", "import openagents", GENERATED_RULE),
        ("libs/oa_khala/x.py", "import openagents", GENERATED_RULE),
        ("libs/oa_runlog/x.py", "import openagents", GENERATED_RULE),
        ("services/control/app/x.py", "import openagents", GENERATED_RULE),
        ("services/control/store/x.py", "import openagents", GENERATED_RULE),
        ("apps/cli/x.py", "import openagents", GENERATED_RULE),
        ("libs/oa_client/x.py", "import openagents_betterproto", BETTERPROTO_RULE),
        ("services/control/app/x.py", "import asyncpg", SQL_RULE),
        ("services/control/grpc_api/x.py", "import asyncpg", SQL_RULE),
        ("apps/cli/x.py", "import asyncpg", SQL_RULE),
    ],
)
def test_forbidden_import_is_refused(rooms: Path, path: str, text: str, rule: str) -> None:
    (rooms / path).write_text(text + "\n", "utf-8")
    assert re.search(rf"{rule}((?!KEPT|BROKEN).)*BROKEN", _lint(rooms))
