"""Documents don't rot: links lead somewhere, tests that they name exist, and what is made from code is current."""

import ast
import configparser
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from tests.house.files import REPO, SourceFile, parsed, tracked
from tools import gen_docs

LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")
TEST_NAME = re.compile(r"`(?P<path>[\w/]+\.py)::(?P<name>\w+)`")
# A docstring there shows how settings are declared, by one that doesn't exist.
EXAMPLES = ("libs/oa_platform/config/loading.py",)
SETTING = re.compile(r"\bOA_[A-Z][A-Z0-9_]*[A-Z0-9]\b")


def dead_links(files: Iterable[SourceFile]) -> list[str]:
    """Relative links in documents that lead to no file or folder of the checkout."""
    found = []
    for file in files:
        folder = REPO / PurePosixPath(file.path).parent
        found += [f"{file.path}: {link}" for link in LINK.findall(file.text) if not (folder / link).exists()]
    return found


def missing_tests(files: Iterable[SourceFile]) -> list[str]:
    """Tests that documents name as `path.py::test_name` and that don't exist."""
    named = {match.groups() for file in files for match in TEST_NAME.finditer(file.text)}
    return sorted(f"{path}::{name}" for path, name in named if name not in _functions(path))


def unexplained_settings(files: Iterable[SourceFile], page: str) -> list[str]:
    """Variables that our files name and the page on configuration doesn't; a secret's may end in _FILE."""
    known = set(SETTING.findall(page))
    named = {(file.path, name) for file in files for name in SETTING.findall(file.text)}
    return sorted(
        f"{path}: {name}" for path, name in named if name.removesuffix("_FILE") not in known and name not in known
    )


def unexplained_benchmarks(files: Iterable[SourceFile], page: str) -> set[str]:
    """Benchmarks that have no section in their page, and sections of benchmarks that there are not."""
    rooms = [file for file in files if file.parts[0] == "benchmarks" and file.path.endswith(".py")]
    named = [(re.sub(r"(/__init__)?\.py$", "", file.path).rpartition("/")[2], file) for file in rooms]
    # Helpers are programs too; only a benchmark says in its docstring how it is called.
    programs = {
        name for name, file in named if f"python -m benchmarks.{name}" in (ast.get_docstring(parsed(file)) or "")
    }
    return programs ^ {name for names in re.findall(r"^## ([\w, ]+):", page, re.M) for name in names.split(", ")}


def _functions(path: str) -> set[str]:
    if not (REPO / path).exists():
        return set()
    tree = ast.parse((REPO / path).read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def _documents() -> list[SourceFile]:
    return [file for file in tracked() if file.path.endswith(".md")]


def test_links_lead_somewhere() -> None:
    assert dead_links(_documents()) == []
    assert dead_links([SourceFile("docs/x.md", "[a](gone.md) [b](../LICENSE) [c](#here)")]) == ["docs/x.md: gone.md"]


def test_tests_named_in_documents_exist() -> None:
    assert missing_tests(_documents()) == []
    here = "tests/house/test_documents.py"
    text = f"`{here}::test_links_lead_somewhere` `{here}::test_gone` `tests/gone.py::test_x`"
    assert missing_tests([SourceFile("docs/x.md", text)]) == ["tests/gone.py::test_x", f"{here}::test_gone"]


def test_the_page_on_architecture_has_the_rooms_and_features_in_their_order() -> None:
    """As .importlinter has them, which also knows the modules around the features of a service."""
    page = (REPO / "docs/architecture.md").read_text("utf-8")
    rules = configparser.ConfigParser()
    rules.read(REPO / ".importlinter", "utf-8")
    layered = [rule for rule in rules.values() if rule.get("type") == "layers" and "containers" in rule]
    found = {name: layers for rule in layered for name, layers in _layers(rule["containers"], rule["layers"])}
    listed = {
        name: [set(re.findall(r"`(\w+)`", layer)) for layer in row.split(" · ")]
        for name, row in re.findall(r"^\| `(\w+)` \| (`\w+`.* · .*) \|$", page, re.M)
    }
    assert listed == found
    assert len(found) == 9


def _layers(containers: str, layers: str) -> Iterator[tuple[str, list[set[str]]]]:
    """Libraries and services with what is in them, from the top, without the insides of features."""
    for container in containers.split():
        parts = container.split(".")
        if len(parts) == 1 or (parts[0] == "services" and len(parts) == 2):
            names = [set(re.findall(r"\w+", layer)) - {"__main__"} for layer in layers.strip().split("\n")]
            if parts[0] == "services":
                names = [{one for one in layer if (REPO / Path(*parts) / one).is_dir()} for layer in names]
            yield parts[-1], [layer for layer in names if layer]


def test_pages_made_from_code_are_current() -> None:
    assert list(gen_docs.outdated(REPO)) == []


def test_every_setting_that_code_or_documents_name_is_explained() -> None:
    page = (REPO / "docs/config.md").read_text("utf-8")
    files = [file for file in tracked() if file.is_ours and not file.is_test and file.path not in EXAMPLES]
    assert unexplained_settings(files, page) == []
    planted = [SourceFile("libs/x.py", "OA_LOG_LEVEL OA_GONE OA_SERVICE_TOKEN")]
    assert unexplained_settings(planted, page) == ["libs/x.py: OA_GONE"]


def test_every_benchmark_is_explained() -> None:
    page = (REPO / "benchmarks/README.md").read_text("utf-8")
    assert unexplained_benchmarks(tracked(), page) == set()
    planted = [SourceFile("benchmarks/a.py", '"""Asks. `python -m benchmarks.a [--json FILE]`"""')]
    assert unexplained_benchmarks(planted, "## b, c: what?\n") == {"a", "b", "c"}


def test_decisions_are_numbered_without_a_hole() -> None:
    numbers = [file.parts[-1][:4] for file in _documents() if file.path.startswith("docs/adr/")]
    assert sorted(numbers) == [f"{number:04}" for number in range(1, len(numbers) + 1)]
