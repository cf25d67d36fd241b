"""What people read has one form: refusals, and what settings say of themselves."""

import ast
import re
from collections.abc import Iterator

from tests.house.files import SourceFile, nodes_of, python_files, tracked

ROOMS = ("apps/", "libs/", "services/")
NO_ADVICE_ROOMS = {
    "libs/oa_runlog/proof/": "verdicts: what was shown stands, and whoever asked decides what it is worth",
    "libs/oa_runlog/state/reducer.py": "says of stored events why they are no run, for those verdicts",
}
"""Room -> why its refusals don't say what to do next."""
NO_ADVICE = {
    "the client went away": "nobody is left to read it",
    "the worker did not end it within {} ms": "how a run ended, not a refusal",
    "the worker was lost in each of {} attempts": "how a run ended, not a refusal",
    "{} ended with {}": "how a run ended, not a refusal",
    "{} ran longer than its {} ms and was ended ({})": "how a run ended, not a refusal",
    "{} was ended by {}, not by us": "how a run ended, not a refusal",
    "{} was ended on request ({})": "how a run ended, not a refusal",
}
"""Text -> why it does not say what to do next."""
_DEMANDS = re.compile(r"\b(must|at most|at least)\b")
"""A sentence that says what is wanted says what to do."""
_REFUSING = {
    "Deny": 1,
    "Refusal": 1,
    "SocketClosed": 0,
    "UnusableServer": 0,
    "_failed": 1,
    "_out_of_order": 0,
    "_refused": 0,
}
"""Calls that make a refusal or say why a run failed, and which of their arguments is the text."""
_VARIABLES = {"message", "text"}
_TABLES = re.compile(r"_?(?:[A-Z]+_)*MESSAGES")
"""Names of tables from a reason to its text."""
_BEGINS = re.compile(r"[a-z0-9{]|[A-Z]{2}|OA_")
"""In lower case, with a number, with what was given, or with a name that is written in capitals."""
_WHO = r"\b(for|by|to|with|than) who (is|are|has|have|can|may|does|wants|reads|writes|keeps|records|looks|asks)\b"
_NO_WORDS = re.compile(rf"\b(Most|Least|Longest)\b|^(\w+ ){{1,3}}of them\b|(?<!Each )\bsuch an?\b|{_WHO}")
"""A page shows each setting in a row that people look up: it says what it means without the row above."""
_NO_NAME = re.compile(r"_*(most|least|longest|largest)(_|$)", re.IGNORECASE)
_NO_BEGINNING = re.compile(rf"(^\s*(\"\"\"|//|///|#) ?|^\|.*\| )(Most|Least|Longest) |{_WHO}")


def other_refusals(files: list[SourceFile]) -> list[str]:
    """Texts of refusals that are no sentence in lower case without a full stop: "what is wrong; what to do"."""
    return [
        f"{file.path}:{line} {text}"
        for file in _of_rooms(files)
        for line, text in _texts(file)
        if not _BEGINS.match(text) or text.endswith(".") or re.search(r"[.?!] [A-Z]", text)
    ]


def refusals_without_advice(files: list[SourceFile]) -> list[str]:
    """Texts of refusals that don't go on with "; " and what to do, or with the text of another refusal."""
    return [
        f"{file.path}:{line} {text}"
        for file in _of_rooms(files)
        if not file.path.startswith(tuple(NO_ADVICE_ROOMS))
        for line, text in _texts(file)
        if not ("; " in text or _DEMANDS.search(text) or text in NO_ADVICE)
    ]


def odd_settings(files: list[SourceFile]) -> list[str]:
    """Settings and options that say "Most", where "Maximum" is meant, and the like."""
    return [
        f"{file.path}:{node.lineno} {text}"
        for file in _of_rooms(files)
        for node in nodes_of(file)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg in ("doc", "help") and _NO_WORDS.search(text := _text(keyword.value))
    ]


def odd_comments(files: list[SourceFile]) -> list[str]:
    """Lines of docstrings, comments and pages that say "Most", where "Maximum" is meant, and the like."""
    return [
        f"{file.path}:{number} {line.strip()}"
        for file in files
        for number, line in enumerate(file.text.splitlines(), start=1)
        if _NO_BEGINNING.search(line)
    ]


def odd_names(files: list[SourceFile]) -> list[str]:
    """Limits whose names say "most", where "max" is meant, and the like: constants, fields and parameters."""
    return [
        f"{file.path}:{line} {name}"
        for file in _of_rooms(files)
        for node in nodes_of(file)
        for line, name in _bound_name(node)
        if _NO_NAME.match(name)
    ]


def _bound_name(node: ast.AST) -> list[tuple[int, str]]:
    match node:
        case ast.Name(id=name, ctx=ast.Store(), lineno=line) | ast.arg(arg=name, lineno=line):
            return [(line, name)]
    return []


def _of_rooms(files: list[SourceFile]) -> list[SourceFile]:
    return [file for file in files if file.path.startswith(ROOMS) and not file.is_test]


def _texts(file: SourceFile) -> Iterator[tuple[int, str]]:
    refusing = _REFUSING | dict(_helpers(file))
    for node in nodes_of(file):
        for value in _said(node, refusing):
            for one in _alternatives(value):
                if text := _text(one):
                    yield one.lineno, text


def _alternatives(node: ast.expr) -> list[ast.expr]:
    """What `a or b` and `a if … else b` may come to."""
    match node:
        case ast.BoolOp(values=values):
            return [one for value in values for one in _alternatives(value)]
        case ast.IfExp(body=body, orelse=other):
            return [*_alternatives(body), *_alternatives(other)]
    return [node]


def _helpers(file: SourceFile) -> Iterator[tuple[str, int]]:
    """Functions of a module that make a refusal with a text that they are given, and which argument that is."""
    for node in nodes_of(file):
        if isinstance(node, ast.FunctionDef) and isinstance(node.returns, ast.Name) and node.returns.id == "Refusal":
            parameters = [each.arg for each in node.args.args if each.arg != "self"]
            for call in ast.walk(node):
                match call:
                    case ast.Call(func=ast.Name(id="Refusal"), args=[_, ast.Name(id=text), *_]) if text in parameters:
                        yield node.name, parameters.index(text)


def _said(node: ast.AST, refusing: dict[str, int]) -> list[ast.expr]:
    """What a node says to whoever is refused."""
    match node:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=args, keywords=keywords) if (
            name in refusing
        ):
            by_name = [keyword.value for keyword in keywords if keyword.arg in _VARIABLES]
            return [*args[refusing[name] : refusing[name] + 1], *by_name]
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict(values=values)) if _TABLES.fullmatch(name):
            return values
        case ast.Assign(targets=[ast.Name(id=name)], value=value) if name in _VARIABLES:
            return [value]
    return []


def _text(node: ast.expr) -> str:
    """What a string literal says, with `{}` for what is filled in; empty for anything else.

    The text of another refusal is `{…; …}`: it brings its advice.
    """
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) if isinstance(part, ast.Constant) else _filled_in(part) for part in parts)
    return ""


def _filled_in(part: ast.expr) -> str:
    match part:
        case ast.FormattedValue(value=ast.Attribute(attr="message")):
            return "{…; …}"
    return "{}"


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
        "Refusal('unavailable', message='The database is away')",
        "def _no(field: str, why: str) -> Refusal:\n    return Refusal('x', why)\n_no('y', 'No.')",
        "base.Refusal('unavailable', 'The database is away')",
        "_MESSAGES = {'code_incorrect': 'The code is wrong'}",
        "Refusal('unavailable', details or f'The call ended with {code}')",
        "Refusal('unavailable', 'wait a moment; try again' if busy else 'The database is away')",
    ):
        assert len(other_refusals(_planted(bad))) == 1, bad
    for good in ("Refusal('unavailable', f'the {x} is away; try again')", "Refusal(reason, f'{x}.sql has no number')"):
        assert other_refusals(_planted(good)) == [], good
    assert other_refusals(_planted("Refusal('x', 'No.')", "libs/oa_runlog/tests/x.py")) == []


def test_refusals_say_what_to_do() -> None:
    assert refusals_without_advice(python_files()) == []
    for room in ("apps/worker/", "libs/oa_base/", "libs/oa_wire/", "services/control/", "services/runtime/"):
        bad = _planted("Refusal('unavailable', 'the database is away')", f"{room}x.py")
        assert len(refusals_without_advice(bad)) == 1, room
    for good in (
        "Refusal('unavailable', 'the database is away; try again')",
        "Refusal('invalid_value', f'{name} must be set')",
        "Refusal('unavailable', f'{name} is away: {refusal.message}')",
    ):
        assert refusals_without_advice(_planted(good)) == [], good


def test_every_exception_from_advice_is_needed() -> None:
    texts = [(file.path, text) for file in _of_rooms(python_files()) for _, text in _texts(file)]
    assert set(NO_ADVICE) <= {text for _, text in texts}
    without = [path for path, text in texts if "; " not in text]
    assert [room for room in NO_ADVICE_ROOMS if not any(path.startswith(room) for path in without)] == []


def test_settings_speak_plainly() -> None:
    assert odd_settings(python_files()) == []
    for bad in ("Most connections.", "Least level.", "Longest pause.", "Lines for who reads.", "Bytes of them."):
        assert len(odd_settings(_planted(f"setting('OA_X', doc='{bad}')"))) == 1, bad
    assert len(odd_settings(_planted("option('--limit', help='Most runs.')"))) == 1
    assert odd_settings(_planted("setting('OA_X', doc='Maximum number of connections.')")) == []


def test_comments_speak_plainly() -> None:
    assert odd_comments([file for file in tracked() if file.is_ours and file.path != "tests/house/test_texts.py"]) == []
    for bad in (
        '    """Most bytes of a frame."""',
        "  // Longest pause.",
        "| `pause_ms` | 10 | Longest pause. |",
        "It waits for who has none.",
        "# told by who looks",
    ):
        assert len(odd_comments(_planted(bad))) == 1, bad
    assert odd_comments(_planted('"""Maximum pause. Most of it is spent by those who wait."""')) == []


def test_limits_are_named_as_limits() -> None:
    assert odd_names(python_files()) == []
    for bad in ("_MOST_LINKS = 16", "class Limits:\n    longest_ms: int", "def wait(most_s): ...", "least = 1"):
        assert len(odd_names(_planted(bad))) == 1, bad
    assert odd_names(_planted("MAX_LINKS, mostly = 16, counter.most_common()")) == []
