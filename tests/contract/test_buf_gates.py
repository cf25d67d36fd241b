"""Each contract gate is seen to bite on a copy of the contracts, and to pass on the contracts as they are."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import gen, proto_check
from tools.buf import REPO

FRAME = "proto/openagents/sync/v1/frame.proto"
UNIMPORTED = "proto/openagents/sync/v1/client_frame.proto"
"""No other file imports it."""
RENUMBERED = ("uint64 seq = 2;", "uint64 seq = 20;")
_MADE: dict[tuple[str, frozenset[tuple[str, bytes]]], dict[str, bytes]] = {}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the gates read."""
    for name in ("proto", "gen", "clients/typescript/src/gen"):
        shutil.copytree(REPO / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.fixture(autouse=True)
def _made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The generators run once for the same contracts: they take seconds, and what is compared with them is tested."""
    make = gen.made

    def made(root: Path, tree: gen.Tree) -> dict[str, bytes]:
        key = tree.folder, frozenset(gen.read_tree(root / "proto").items())
        if key not in _MADE:
            _MADE[key] = make(root, tree)
        return _MADE[key]

    monkeypatch.setattr(gen, "made", made)


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text("utf-8")
    assert text.count(old) == 1, f"the planted edit needs exactly one {old!r} in {path.name}"
    path.write_text(text.replace(old, new), "utf-8")


@pytest.mark.parametrize("gate", proto_check.GATES.values(), ids=list(proto_check.GATES))
def test_gate_passes_on_the_contracts_as_they_are(gate: Callable[[Path], str]) -> None:
    assert gate(REPO) == ""


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (*RENUMBERED, 'Previously present field "2" with name "seq"'),
        ("uint64 seq = 2;", "string seq = 2;", 'changed type from "uint64" to "string"'),
        ("uint64 seq = 2;", "uint64 sequence = 2;", 'changed name from "seq" to "sequence"'),
        ("message KhalaFrame {", "message KhalaFrameTwo {", 'Previously present message "KhalaFrame" was deleted'),
        ("FRAME_KIND_CAUGHT_UP = 5;", "FRAME_KIND_CAUGHT_UP = 50;", 'Previously present enum value "5"'),
    ],
    ids=["renumbered field", "retyped field", "renamed field", "removed message", "renumbered enum value"],
)
def test_breaking_change_is_refused(checkout: Path, old: str, new: str, complaint: str) -> None:
    _edit(checkout / FRAME, old, new)
    assert complaint in proto_check.breaking(checkout)


def test_removed_file_is_a_breaking_change(checkout: Path) -> None:
    (checkout / UNIMPORTED).rename(checkout / "proto/openagents/sync/v1/frame_renamed.proto")
    assert "Previously present file" in proto_check.breaking(checkout)


def test_added_field_is_not_a_breaking_change(checkout: Path) -> None:
    _edit(checkout / FRAME, "uint64 seq = 2;", "uint64 seq = 2;\n  // New.\n  string later = 99;")
    assert proto_check.breaking(checkout) == ""


def test_missing_baseline_is_refused(checkout: Path) -> None:
    (checkout / proto_check.BASELINE).unlink()
    assert "is missing" in proto_check.breaking(checkout)


@pytest.mark.parametrize(
    ("planted", "complaint"),
    [
        ("// Fine.\nmessage lower_case {}\n", "should be PascalCase"),
        ("message Undocumented {}\n", "should have a non-empty comment"),
        ("// Fine.\nmessage Fields {\n  string bare = 1;\n}\n", 'Field "bare" should have a non-empty comment'),
        ("// Fine.\nenum Bare {\n  // Fine.\n  ZERO = 0;\n}\n", 'should be prefixed with "BARE_"'),
        ("// Fine.\nservice Bare {}\n", 'should be suffixed with "Service"'),
    ],
    ids=["message case", "message comment", "field comment", "enum prefix", "service suffix"],
)
def test_lint_violation_is_refused(checkout: Path, planted: str, complaint: str) -> None:
    with (checkout / FRAME).open("a", encoding="utf-8") as file:
        file.write(planted)
    assert complaint in proto_check.lint(checkout)


def test_lint_cannot_be_silenced_by_a_comment(checkout: Path) -> None:
    with (checkout / FRAME).open("a", encoding="utf-8") as file:
        file.write("// Fine.\n// buf:lint:ignore MESSAGE_PASCAL_CASE\nmessage lower_case {}\n")
    assert "should be PascalCase" in proto_check.lint(checkout)


def test_edited_stale_and_missing_generated_files_are_each_named(checkout: Path) -> None:
    with (checkout / "gen/openagents/sync/v1/frame_pb2.py").open("a", encoding="utf-8") as file:
        file.write("# by hand\n")
    (checkout / "gen/openagents/sync/v1/frame_pb2.pyi").unlink()
    (checkout / "gen/openagents/sync/v1/gone_pb2.py").write_text("", "utf-8")
    complaint = proto_check.generated(checkout).splitlines()
    assert complaint[:3] == [
        "differs  gen/openagents/sync/v1/frame_pb2.py",
        "missing  gen/openagents/sync/v1/frame_pb2.pyi",
        "stale    gen/openagents/sync/v1/gone_pb2.py",
    ]


def test_changed_contract_without_regeneration_is_refused(checkout: Path) -> None:
    _edit(checkout / FRAME, *RENUMBERED)
    complaint = proto_check.generated(checkout)
    assert "differs  gen/openagents/sync/v1/frame_pb2.py" in complaint
    assert "differs  gen/openagents_betterproto/sync/v1/__init__.py" in complaint
    if gen.can_make_typescript():
        assert "differs  clients/typescript/src/gen/openagents/sync/v1/frame_pb.ts" in complaint


def test_contract_that_does_not_compile_fails_the_gate_with_its_place(checkout: Path) -> None:
    _edit(checkout / FRAME, "uint64 seq = 2;", "uint64 seq = ;")
    assert "frame.proto:" in proto_check.generated(checkout)


def test_writing_mends_every_difference_and_then_changes_nothing(checkout: Path) -> None:
    (checkout / "gen/openagents/sync/v1/frame_pb2.py").write_text("# by hand\n", "utf-8")
    gone = checkout / "gen/openagents/gone/v1/gone_pb2.py"
    gone.parent.mkdir(parents=True)
    gone.write_text("", "utf-8")
    assert len(gen.write(checkout)) == 2
    assert not (checkout / "gen/openagents/gone").exists()
    assert gen.write(checkout) == []
    assert gen.check(checkout) == []


def test_command_ends_with_status_1_and_names_the_gate(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _edit(checkout / FRAME, *RENUMBERED)
    monkeypatch.setattr(sys, "argv", ["proto_check", "--root", str(checkout)])
    with pytest.raises(SystemExit) as ended:
        proto_check.main()
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "proto lint: ok" in said
    assert "proto breaking: FAILED" in said
    assert "proto generated: FAILED" in said


@pytest.mark.parametrize("name", ["buf.yaml", "buf.gen.yaml", "buf.gen.betterproto.yaml", "buf.gen.es.yaml"])
def test_gates_name_nothing_remote(name: str) -> None:
    keys = [line.split("#")[0].strip().lstrip("- ") for line in (REPO / name).read_text("utf-8").splitlines()]
    assert not [key for key in keys if key.startswith(("deps:", "remote:"))]
    assert not (REPO / "buf.lock").exists()
