"""What the house rules look at: the files that git tracks, and those that it would."""

import ast
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
_PURE_OF_CLIENT = ("core/", "follow/items.py", "follow/updates.py", "proofs/event_lines.py", "proofs/pins.py")
_BINARY = {".binpb", ".png", ".ico", ".gz", ".zst", ".db"}


@dataclass(frozen=True)
class SourceFile:
    """One tracked text file: its path relative to the checkout, with `/`, and its text."""

    path: str
    text: str

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders and name."""
        return tuple(self.path.split("/"))

    @property
    def is_ours(self) -> bool:
        """Written by people: neither generated nor locked nor a licence."""
        return not (self.parts[0] in {"gen", "LICENSE"} or self.path.endswith((".lock", "package-lock.json")))

    @property
    def is_test(self) -> bool:
        """Part of a test package."""
        return "tests" in self.parts[:-1]

    @property
    def is_pure(self) -> bool:
        """In a room that decides: no clock, no await, no chance."""
        pure_library = self.parts[0] == "libs" and self.parts[1] in {"oa_base", "oa_wire", "oa_khala", "oa_runlog"}
        of_client = self.path.startswith(tuple(f"libs/oa_client/{room}" for room in _PURE_OF_CLIENT))
        domain = self.parts[0] == "services" and not {"domain", "domain.py"}.isdisjoint(self.parts)
        return self.path.endswith(".py") and (pure_library or of_client or domain) and not self.is_test


@cache
def tracked() -> tuple[SourceFile, ...]:
    """All text files that are tracked or new and not ignored; in a tree without git, all that are not hidden."""
    names = _git_names() if (REPO / ".git").exists() else _walked_names()
    paths = [REPO / name for name in sorted(names)]
    return tuple(
        SourceFile(path.relative_to(REPO).as_posix(), path.read_text("utf-8"))
        for path in paths
        if path.is_file() and not path.is_symlink() and path.suffix not in _BINARY
    )


def _git_names() -> list[str]:
    command = ["git", "-c", f"safe.directory={REPO}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True, timeout=30)
    return [name for name in done.stdout.split("\0") if name]


def _walked_names() -> list[str]:
    relative = (path.relative_to(REPO) for path in REPO.rglob("*"))
    hidden = (
        ".venv",
        ".oa",
        ".mypy_cache",
        ".ruff_cache",
        ".pytest_cache",
        ".hypothesis",
        "__pycache__",
        "node_modules",
    )
    return [path.as_posix() for path in relative if not any(part in hidden for part in path.parts)]


def python_files() -> list[SourceFile]:
    """All our Python."""
    return [file for file in tracked() if file.is_ours and file.path.endswith(".py")]


@cache
def parsed(file: SourceFile) -> ast.Module:
    """The file's syntax tree."""
    return ast.parse(file.text, file.path)


@cache
def nodes_of(file: SourceFile) -> tuple[ast.AST, ...]:
    """All nodes of the file's syntax tree, from the outside in: several rules look at each of them."""
    return tuple(ast.walk(parsed(file)))
