"""An extra has exactly what its program imports; an image has exactly what its program imports of ours."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from openagents import HOMES
from tools.images.build import CONTAINERFILE
from tools.images.contents import CHECKOUT, contents
from tools.images.imports import imports_of
from tools.images.sbom import bill, pins
from tools.images.targets import TARGETS, Target


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)


COMMANDS = CHECKOUT / "apps" / "cli" / "commands"
"""Their modules are loaded by name, when they are called for."""
PROGRAMS = {name: target.programs for name, target in TARGETS.items()} | {
    "cli": ("apps.cli", *(_dotted(path) for path in sorted(COMMANDS.rglob("[a-z]*.py")))),
    "sdk": tuple(home.partition(":")[0] for home in HOMES.values()),
}
"""Extra -> what it is for."""
BY_NAME = {"uvicorn": {"httptools"}, "cronsim": {"tzdata"}}
"""What a package loads by its name, so that no import of ours shows it; for cron expressions zoneinfo does."""
PROJECT = "openagents-runtime"
EVERY = pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: str(target.name))


@cache
def owners() -> dict[str, str]:
    """Dotted name of a module -> the distribution that it comes from."""
    found: dict[str, str] = {}
    for distribution in distributions():
        owner = canonicalize_name(distribution.metadata["Name"])  # parsed anew whenever it is asked for
        for file in distribution.files or []:
            if file.suffix in {".py", ".so"}:
                module = file.parent if file.stem == "__init__" else file.parent / file.name.partition(".")[0]
                found[module.as_posix().replace("/", ".")] = owner
    return found


def imported(foreign: Iterable[str]) -> set[str]:
    """The distributions that these names come from; a name that nobody installed stands for itself."""
    found = {_owner(name) for name in foreign}
    return found | {loaded for name in found for loaded in BY_NAME.get(name, ())}


def _owner(name: str) -> str:
    parts = name.split(".")
    prefixes = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((owners()[prefix] for prefix in prefixes if prefix in owners()), name)


def asked_for(extra: str) -> set[str]:
    """The distributions that an extra names, with those of the extras that it takes over, and those that all need."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]

    def of(texts: list[str]) -> Iterator[str]:
        for requirement in map(Requirement, texts):
            if requirement.name == PROJECT:
                for other in requirement.extras:
                    yield from of(project["optional-dependencies"][other])
            else:
                yield canonicalize_name(requirement.name)

    return {*of(project["optional-dependencies"][extra]), *of(project["dependencies"])}


@pytest.mark.parametrize("extra", PROGRAMS)
def test_an_extra_has_what_its_program_imports_and_no_more(extra: str) -> None:
    assert asked_for(extra) == imported(imports_of(PROGRAMS[extra], CHECKOUT).foreign)


def test_imports_are_followed_wherever_they_stand(tmp_path: Path) -> None:
    files = {
        "services/__init__.py": "",
        "services/a/__main__.py": "from services.a.b import thing\nimport json\n",
        "services/a/b.py": "def f():\n    import grpc.aio\nif TYPE_CHECKING:\n    import mypy\nelse:\n    import late",
        "services/a/unused.py": "import pytest\n",
        "libs/oa_x/__init__.py": "from oa_x import y\n",
        "libs/oa_x/y.py": "from google.rpc import status_pb2\nthing = 1\n",
        "gen/late/__init__.py": "from oa_x.y import thing\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = imports_of(["services.a"], tmp_path)
    names = {"services", "services.a.__main__", "services.a.b", "late", "oa_x", "oa_x.y"}
    assert (set(found.ours), set(found.foreign)) == (names, {"grpc.aio", "google.rpc.status_pb2"})
    with pytest.raises(LookupError):
        imports_of(["services.gone"], tmp_path)


@EVERY
def test_an_image_holds_its_program_and_neither_tests_nor_another_service(target: Target) -> None:
    files = contents(target)
    names = {path.as_posix() for path in files}
    assert [name for name in names if "/tests/" in f"/{name}" or name.startswith(("oa_testing", "oa_localstack"))] == []
    services = {name.split("/")[1] for name in names if name.startswith("services/") and name.count("/") > 1}
    own = {target.module.split(".")[1]} if target.module.startswith("services.") else set()
    assert services == own | set(target.migrations)
    assert all(source.is_file() for source in files.values())
    sql = {name.split("/")[1] for name in names if name.endswith(".sql")}
    assert sql == set(target.migrations)


def test_the_containerfile_has_each_target_with_its_program_and_lock() -> None:
    text = CONTAINERFILE.read_text("utf-8")
    stage = r"^FROM (?:worker-)?image AS (\S+)\n(?:(?!FROM)[^\n]*\n)*?"
    last = re.findall(stage + r'ENTRYPOINT \["python3", "-P", "-m", "(\S+)"\]', text, re.MULTILINE)
    assert dict(last) == {target.name: target.module for target in TARGETS.values()}
    for name in TARGETS:
        assert f"COPY requirements/{name}.lock /build/lock\n" in text
        assert f"RUN python3 -m tools.images.contents {name} /code && \\\n" in text
        assert f"COPY --from=packages-{name} /packages /app/packages\nCOPY --from=code-{name} /code /app/code\n" in text


@EVERY
def test_a_bill_of_materials_names_every_package_with_its_hashes(target: Target) -> None:
    lock = (CHECKOUT / "requirements" / f"{target.name}.lock").read_text("utf-8")
    debian = [{"Package": "libc6", "Version": "2.36-9+deb12u10", "Architecture": "amd64"}]
    document = bill(target.name, "1.2.3", "abc", lock, debian, 0)
    assert document == bill(target.name, "1.2.3", "abc", lock, debian, 0)
    components = json.loads(json.dumps(document))["components"]
    *python, libc = components
    assert {one["name"]: one["version"] for one in python} == pins(lock)
    counted = [len(one["externalReferences"][0]["hashes"]) for one in python]
    installed = re.sub(r"(?m)^\S+ ; [^\n]*sys_platform == 'emscripten'[^\n]*(\n    \S+( \\)?)*\n", "", lock)
    assert (sum(counted), min(counted) > 0) == (installed.count("--hash=sha256:"), True)
    assert libc["purl"] == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64"


def test_what_linux_does_not_install_is_in_no_bill() -> None:
    named = ("a==1 ; sys_platform == 'win32'", "b==2 ; sys_platform != 'win32'")
    lock = "".join(f"{name} \\\n    --hash=sha256:{'0' * 64}\n" for name in named)
    assert pins(lock) == {"b": "2"}
