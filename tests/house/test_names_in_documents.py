"""What pages name exists: anchors, commands of `oa` and their options, targets of make, metrics, paths, and words."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from functools import cache

import click

from apps.cli.pages import commands_of
from apps.cli.program import oa
from oa_runlog.authority.retries import LASTING
from tests.house.files import REPO, SourceFile, tracked
from tools.docs_metrics import names_of_series

_FENCE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"\[[^\]]*\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.*)$", re.MULTILINE)
_SHELL_LINE = re.compile(r"^ *(?:\w+=\S+ )*(oa [a-z].*)$", re.MULTILINE)
_TARGET = re.compile(r"`make ([a-z][a-z0-9-]*)[^`]*`|^ *make ([a-z][a-z0-9-]*)(?=$| +#| [A-Z]+=)", re.MULTILINE)
_METRIC = re.compile(r"\boa_[a-z0-9_]+")
_ROOMS = "apps|benchmarks|clients|deploy|docs|examples|libs|proto|services|tests|tools"
_PATH = re.compile(rf"(?!.*/\.env$)(?:{_ROOMS})/[\w./-]*\w")
_PAGE = re.compile(r"\bdocs/[\w/.-]+\.md\b")
_WORD = re.compile(r"\b[a-z][a-z0-9]*(?:_[a-z0-9]+)+\b")
_HERE = "test_names_in_documents.py"
_ALWAYS = {"--help", "--json"}
_GENERATED = ("docs/cli.md", "docs/config.md", "docs/errors.md", "docs/metrics.md")
_MORE_NAMES = {"oa_owner", "oa_migrations"}
"""Names that begin like metrics: the owner of the tables, and the schema of migrations."""
FOREIGN = {
    "allow_connect": "Envoy",
    "allow_non_tls": "NATS",
    "archive_command": "PostgreSQL",
    "go_package": "protobuf",
    "limit_conn": "nginx",
    "parentbased_traceidratio": "OpenTelemetry",
    "pg_upgrade": "PostgreSQL",
    "real_ip_recursive": "nginx",
    "set_real_ip_from": "nginx",
    "too_many_pings": "gRPC",
    "worker_shutdown_timeout": "nginx",
    "xact_start": "PostgreSQL",
    "zero_damaged_pages": "PostgreSQL",
}
"""Names in pages that belong to other programs."""


def dead_anchors(files: Iterable[SourceFile]) -> list[str]:
    """Links to a heading that its page does not have."""
    headings = {file.path: set(_anchors(file.text)) for file in _documents()}
    found = []
    for file in files:
        here = headings.get(file.path) or set(_anchors(file.text))
        for page, anchor in _LINK.findall(file.text):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(file.path), page))
            if anchor not in (headings.get(target, set()) if page else here):
                found.append(f"{file.path}: {page}#{anchor}")
    return found


def wrong_commands(files: Iterable[SourceFile]) -> list[str]:
    """Calls of `oa` in code, of a command or with an option that it does not have."""
    commands = dict(commands_of(oa, ("oa",)))
    return [f"{file.path}: {call}" for file in files for call in _calls(file.text) if not _is_call(call, commands)]


def missing_targets(files: Iterable[SourceFile]) -> list[str]:
    """Targets of make that pages name and the Makefile does not have."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (REPO / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = [(file, "".join(groups)) for file in files for groups in _TARGET.findall(file.text)]
    return [f"{file.path}: make {target}" for file, target in named if target not in targets]


def missing_metrics(files: Iterable[SourceFile]) -> list[str]:
    """Names of metrics that there are not. In a line with `grep`, the beginning of a name is enough."""
    series = names_of_series()
    others = {path.name for path in (REPO / "libs").iterdir()} | _MORE_NAMES
    lines = [(file, line) for file in files for line in file.text.splitlines()]
    named = [(file, line, name) for file, line in lines for name in _METRIC.findall(line) if name not in others]
    return [
        f"{file.path}: {name}"
        for file, line, name in named
        if not (name in series or ("grep" in line and any(one.startswith(name) for one in series)))
    ]


def missing_paths(files: Iterable[SourceFile]) -> list[str]:
    """Files and folders of the checkout that pages name in backticks, and pages that code names, that don't exist."""
    named = [
        (file, name)
        for file in files
        for name in (_codes(file.text) if file.path.endswith(".md") else _PAGE.findall(file.text))
        if _PATH.fullmatch(name)
    ]
    return [f"{file.path}: {path}" for file, path in named if not (REPO / path).exists()]


def unknown_words(files: Iterable[SourceFile]) -> list[str]:
    """Words like `a_reason` in backticks that no code has: reasons, log lines, fields, limits, columns, roles."""
    known = _words_of_code() | FOREIGN.keys() | names_of_series()
    return [f"{file.path}: {word}" for file in files for word in _words(file) if word not in known]


def _documents() -> list[SourceFile]:
    return [file for file in tracked() if file.path.endswith(".md")]


def _pages() -> list[SourceFile]:
    """Pages that say how things are: neither what was decided or changed, nor what is made from code."""
    old = ("docs/adr/", "CHANGELOG.md", *_GENERATED)
    return [file for file in _documents() if not file.path.startswith(old)]


def _anchors(text: str) -> Iterator[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    seen = dict[str, int]()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        seen[anchor] = seen.get(anchor, -1) + 1
        yield f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor


def _codes(text: str) -> list[str]:
    return _CODE.findall(_FENCE.sub("", text))


def _calls(text: str) -> Iterator[str]:
    joined = text.replace("\\\n", " ")
    for found in [*_CODE.findall(joined), *_SHELL_LINE.findall(joined)]:
        if re.match(r"oa [a-z]", found):
            yield re.split(r" #| \| | && |;|\)", found)[0]


def _is_call(call: str, commands: dict[tuple[str, ...], click.Command]) -> bool:
    words = call.split()
    while words and tuple(words) not in commands:
        words.pop()
    if not words:
        path = call.split()
        return any(command[: len(path)] == tuple(path) for command in commands)
    parameters = commands[tuple(words)].params
    options = {name for each in parameters for name in (*each.opts, *each.secondary_opts)} | _ALWAYS
    given = re.split(r" -- | --$", call.removeprefix(" ".join(words)))[0]
    return set(re.findall(r"(?<!\S)(--?[a-zA-Z][\w-]*)", given)) <= options


def _words(file: SourceFile) -> list[str]:
    """Words like `a_reason` in backticks, without those that the page itself shows in a block of code."""
    shown = set(_WORD.findall("".join(found[0] for found in _FENCE.finditer(file.text))))
    return [word for code in _codes(file.text) for word in _WORD.findall(code) if word not in shown]


@cache
def _words_of_code() -> set[str]:
    code = [file for file in tracked() if file.is_ours and not file.path.endswith((".md", f"/{_HERE}"))]
    return {word for file in code for text in (file.path, file.text) for word in _WORD.findall(text)}


def _planted(text: str) -> list[SourceFile]:
    return [SourceFile("docs/x.md", text)]


def test_links_lead_to_headings_that_exist() -> None:
    assert dead_anchors(_documents()) == []
    page = "# A `b` of [c](d)\n[1](#a-b-of-c) [2](#gone) [3](errors.md#errors) [4](errors.md#gone)"
    assert dead_anchors(_planted(page)) == ["docs/x.md: #gone", "docs/x.md: errors.md#gone"]


def test_commands_of_oa_exist_with_their_options() -> None:
    assert wrong_commands(_pages()) == []
    good = "`oa run start --detach -- x --y`, `oa run`, `oa run tail latest --json`\n\n    A=1 oa down  # --gone\n"
    assert wrong_commands(_planted(good)) == []
    bad = ["oa run gone", "oa gone", "oa run tail --gone"]
    assert wrong_commands(_planted("".join(f"`{call}`\n" for call in bad))) == [f"docs/x.md: {call}" for call in bad]


def test_targets_of_make_exist() -> None:
    assert missing_targets(_pages()) == []
    assert missing_targets(_planted('`make gone ARGS="x"`, `make test`')) == ["docs/x.md: make gone"]


def test_metrics_exist() -> None:
    read = [file for file in tracked() if file.path.startswith("deploy/")]
    assert missing_metrics([*_pages(), *read]) == []
    text = "`oa_ready`, `oa_gone_total`\n curl | grep oa_runtime_\n curl | grep oa_gone_\n oa_runtime_workers"
    gone = ["oa_gone_total", "oa_gone_", "oa_runtime_workers"]
    assert missing_metrics(_planted(text)) == [f"docs/x.md: {name}" for name in gone]


def test_paths_exist() -> None:
    code = [file for file in tracked() if file.is_ours and not file.is_test and not file.path.endswith(".md")]
    assert missing_paths([*_pages(), *code]) == []
    assert missing_paths([SourceFile("libs/x.py", '"""See docs/gone.md and docs/cli.md."""')]) == [
        "libs/x.py: docs/gone.md"
    ]
    assert missing_paths(_planted("`libs/oa_khala/gone.py` `docs/errors.md`")) == ["docs/x.md: libs/oa_khala/gone.py"]


def test_words_of_code_exist() -> None:
    assert unknown_words(_pages()) == []
    assert unknown_words(_planted("`token_gone` `token_expired`")) == ["docs/x.md: token_gone"]


def test_failures_that_are_not_tried_again_are_listed() -> None:
    page = (REPO / "docs/queue.md").read_text("utf-8")
    listed = page.partition("another attempt would end in the same way:")[2].partition("\n\n")[2].partition("\n\n")[0]
    assert set(_WORD.findall(listed)) == LASTING


def test_every_foreign_name_is_needed() -> None:
    named, ours = {word for file in _pages() for word in _words(file)}, _words_of_code()
    assert [name for name in FOREIGN if name not in named or name in ours] == []
