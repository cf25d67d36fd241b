"""`oa` writes through one door: nothing goes round what makes foreign text visible and bears a closed output."""

import ast
from collections.abc import Iterator

from tests.house.files import SourceFile, nodes_of, python_files

ROOM = "apps/cli/"
TIMES = "apps/cli/times.py"
DOOR = ("apps/cli/output.py", "apps/cli/sink.py")
_PRINTING_MODULES = {"rich", "logging", "structlog", "getpass", "curses", "readline"}
_MEASURES = "rich.cells"
"""Says how wide a text is, and prints nothing."""
_OF_MODULES = {
    "sys": {"stdout", "stderr", "stdin", "__stdout__", "__stderr__", "__stdin__", "displayhook", "excepthook"},
    "click": {"echo", "secho", "prompt", "confirm", "pause", "edit", "clear", "progressbar", "echo_via_pager"}
    | {"get_text_stream", "get_binary_stream", "open_file", "launch"},
    "traceback": {"print_exc", "print_exception", "print_stack", "print_tb", "print_last"},
    "os": {"write", "writev", "fdopen", "dup2"},
}
_CALLS = {"print", "input", "open"}


def ways_round_the_door(files: list[SourceFile]) -> list[str]:
    """What prints in the program's room, but in the door itself."""
    found = []
    for file in files:
        if file.path.startswith(ROOM) and not file.is_test and file.path not in DOOR:
            ways = sorted(way for node in nodes_of(file) for way in _ways(node))
            found += [f"{file.path}:{line} {what}" for line, what in ways]
    return found


def _ways(node: ast.AST) -> Iterator[tuple[int, str]]:
    match node:
        case ast.Call(func=ast.Name(id=name)) if name in _CALLS:
            yield node.lineno, name
        case ast.Call(func=ast.Attribute(attr="show"), args=[], keywords=[]):
            yield node.lineno, "show()"  # how click prints an error
        case ast.Attribute(value=ast.Name(id=module), attr=name) if name in _OF_MODULES.get(module, ()):
            yield node.lineno, f"{module}.{name}"
        case ast.Import(names=names):
            modules = (each.name for each in names)
            yield from ((node.lineno, name) for name in modules if name.split(".")[0] in _PRINTING_MODULES)
        case ast.ImportFrom(module=str(module), names=names):
            taken = {each.name for each in names} & _OF_MODULES.get(module, set())
            yield from ((node.lineno, f"{module}.{name}") for name in taken)
            if (module.split(".")[0] in _PRINTING_MODULES and module != _MEASURES) or module == "apps.cli.sink":
                taken = {each.name for each in names} - {"keep_standard_descriptors"}
                yield from ((node.lineno, f"{module}.{name}") for name in taken)


def cut_times(files: list[SourceFile]) -> list[str]:
    """Slices of texts, in the program's room, that end as those of times do: without the time's zone."""
    found = []
    for file in files:
        if file.path.startswith(ROOM) and not file.is_test and file.path != TIMES:
            for node in nodes_of(file):
                match node:
                    case ast.Subscript(slice=ast.Slice(lower=None, upper=ast.Constant(value=10 | 16 | 19))):
                        found.append(f"{file.path}:{node.lineno}")
    return found


def _planted(text: str, path: str = "apps/cli/x.py") -> list[str]:
    return [way.split(" ", 1)[1] for way in ways_round_the_door([SourceFile(path, text)])]


def test_the_program_writes_through_its_door_only() -> None:
    assert ways_round_the_door(python_files()) == []
    assert _planted("print(1)\ninput()\nerror.show()\nsys.stdout.write(x)\nclick.echo(x)\n") == [
        *("print", "input", "show()", "sys.stdout", "click.echo")
    ]
    assert _planted("from rich.cells import cell_len") == []
    assert _planted("from click import echo, Path\nimport rich.console\nfrom rich.table import Table\n") == [
        *("click.echo", "rich.console", "rich.table.Table")
    ]
    assert _planted("from apps.cli.sink import Sink, keep_standard_descriptors\n") == ["apps.cli.sink.Sink"]
    assert _planted("view.show(item)\nsys.exit(1)\nclick.option('--x')\n") == []
    for elsewhere in (*DOOR, "apps/cli/tests/test_x.py", "libs/x.py"):
        assert _planted("print(1)\n", elsewhere) == []


def test_times_are_shown_by_one_function_with_their_zone() -> None:
    assert cut_times(python_files()) == []
    assert cut_times([SourceFile("apps/cli/x.py", "row = [one.created_at[:19], one.note[:80]]\n")]) == [
        "apps/cli/x.py:1"
    ]
