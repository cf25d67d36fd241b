"""What people read has one form: refusals in these rooms, and what settings say of themselves."""

import ast
import re
from collections.abc import Iterator

from tests.house.files import SourceFile, parsed, python_files

ROOMS = (
    "apps/cli/",
    "libs/oa_client/",
    "libs/oa_khala/",
    "libs/oa_localstack/",
    "libs/oa_platform/",
    "libs/oa_topics/",
    "libs/oa_worker/",
    "services/control/",
    "services/khala_gateway/",
    "services/projector/",
    "services/runtime/",
)
ADVISING_ROOMS = ("services/runtime/",)
"""Rooms whose refusals all say what to do next."""
_REFUSING = {
    "Deny": 1,
    "Refusal": 1,
    "SocketClosed": 0,
    "UnusableServer": 0,
    "_failed": 1,
    "_lose_all": 0,
    "_out_of_order": 0,
    "_refused": 0,
}
"""Calls that make a refusal or say why a run failed, and which of their arguments is the text."""
_VARIABLES = {"message", "text"}
_TABLES = re.compile(r"_?(?:[A-Z]+_)*MESSAGES")
"""Names of tables from a reason to its text."""
_BEGINS = re.compile(r"[a-z0-9{]|[A-Z]{2}|OA_")
"""In lower case, with a number, with what was given, or with a name that is written in capitals."""
_NO_WORDS = re.compile(r"\b(Most|Least)\b|\bfor who reads\b")


def other_refusals(files: list[SourceFile]) -> list[str]:
    """Texts of refusals that are no sentence in lower case without a full stop: "what is wrong; what to do"."""
    return [
        f"{file.path}:{line} {text}"
        for file in _of_rooms(files)
        for line, text in _texts(parsed(file))
        if not _BEGINS.match(text) or text.endswith(".") or re.search(r"[.?!] [A-Z]", text)
    ]


def refusals_without_advice(files: list[SourceFile]) -> list[str]:
    """Texts of refusals that don't go on with "; " and what to do."""
    return [
        f"{file.path}:{line} {text}"
        for file in files
        if file.path.startswith(ADVISING_ROOMS) and not file.is_test
        for line, text in _texts(parsed(file))
        if "; " not in text
    ]


def odd_settings(files: list[SourceFile]) -> list[str]:
    """Settings and options that say "Most", where "Maximum" is meant, and the like."""
    return [
        f"{file.path}:{node.lineno} {text}"
        for file in _of_rooms(files)
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg in ("doc", "help") and _NO_WORDS.search(text := _text(keyword.value))
    ]


def _of_rooms(files: list[SourceFile]) -> list[SourceFile]:
    return [file for file in files if file.path.startswith(ROOMS) and not file.is_test]


def _texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        for value in _said(node):
            if text := _text(value):
                yield value.lineno, text


def _said(node: ast.AST) -> list[ast.expr]:
    """What a node says to whoever is refused."""
    match node:
        case ast.Call(func=ast.Name(id=name), args=args) if name in _REFUSING:
            return args[_REFUSING[name] : _REFUSING[name] + 1]
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict(values=values)) if _TABLES.fullmatch(name):
            return values
        case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in _VARIABLES:
            return [value]
    return []


def _text(node: ast.expr) -> str:
    """What a string literal says, with `{}` for what is filled in; empty for anything else."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) if isinstance(part, ast.Constant) else "{}" for part in parts)
    return ""


def _planted(text: str, path: str = "libs/oa_platform/x.py") -> list[SourceFile]:
    return [SourceFile(path, text)]


def test_refusals_have_one_form() -> None:
    assert other_refusals(python_files()) == []
    for bad in (
        "Refusal('unavailable', 'The database is away')",
        "Refusal('unavailable', 'the database is away.')",
        "Refusal('unavailable', 'the database is away. Try again')",
        "message = f'The {x} is away'",
        "_refused(f'{x} was changed. Write a new one')",
        "Deny('missing_scope', 'The token has no such scope')",
        "_MESSAGES = {'code_incorrect': 'The code is wrong'}",
    ):
        assert len(other_refusals(_planted(bad))) == 1, bad
    for good in ("Refusal('unavailable', f'the {x} is away; try again')", "Refusal(reason, f'{x}.sql has no number')"):
        assert other_refusals(_planted(good)) == [], good
    assert other_refusals(_planted("Refusal('x', 'No.')", "libs/oa_runlog/x.py")) == []


def test_refusals_say_what_to_do() -> None:
    assert refusals_without_advice(python_files()) == []
    room = f"{ADVISING_ROOMS[0]}x.py"
    assert len(refusals_without_advice(_planted("Refusal('unavailable', 'the database is away')", room))) == 1
    assert refusals_without_advice(_planted("Refusal('unavailable', 'the database is away; try again')", room)) == []
    assert refusals_without_advice(_planted("Refusal('x', 'no')")) == []


def test_settings_speak_plainly() -> None:
    assert odd_settings(python_files()) == []
    for bad in ("Most connections.", "Least level.", "Lines for who reads."):
        assert len(odd_settings(_planted(f"setting('OA_X', doc='{bad}')"))) == 1, bad
    assert len(odd_settings(_planted("option('--limit', help='Most runs.')"))) == 1
    assert odd_settings(_planted("setting('OA_X', doc='Maximum number of connections.')")) == []
