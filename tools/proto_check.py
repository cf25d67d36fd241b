"""The contract gates: style, compatibility, and whether the code generated from the contracts is up to date.

`python -m tools.proto_check [--root DIR]` works offline; it runs every gate and ends with status 1 if one fails.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from tools import gen
from tools.buf import REPO, BufError, run_buf

BASELINE = "proto/baseline/v1.binpb"


def lint(root: Path) -> str:
    """The faults that buf's STANDARD and COMMENTS rules find in the contracts; empty if there are none."""
    return _complaint(root, "lint", "proto", "--config", str(REPO / "buf.yaml"))


def breaking(root: Path) -> str:
    """The changes in the contracts that break clients of the released ones (rule set FILE); empty if there are none."""
    if not (root / BASELINE).exists():
        return f"{BASELINE} is missing: it is the released contract, and `make baseline` writes it at a release"
    return _complaint(root, "breaking", "proto", "--against", BASELINE, "--config", str(REPO / "buf.yaml"))


def generated(root: Path) -> str:
    """How the generated code differs from what the contracts give; empty if it doesn't."""
    try:
        lines = gen.check(root)
    except BufError as error:
        return str(error)
    return "\n".join([*lines, "run `make gen`; what is generated is never edited by hand"]) if lines else ""


GATES: dict[str, Callable[[Path], str]] = {"lint": lint, "breaking": breaking, "generated": generated}


def _complaint(root: Path, *arguments: str) -> str:
    try:
        run_buf(root, *arguments)
    except BufError as error:
        return str(error)
    return ""


def main() -> None:
    """Entry point of `python -m tools.proto_check`."""
    parser = argparse.ArgumentParser(description="Check the contracts.")
    parser.add_argument("--root", type=Path, default=REPO, help="a checkout other than this one")
    root: Path = parser.parse_args().root.resolve()
    failed = False
    for name, gate in GATES.items():
        complaint = gate(root)
        failed = failed or bool(complaint)
        print(f"proto {name}: {'FAILED' if complaint else 'ok'}", *complaint.splitlines(), sep="\n  ")
    if not gen.can_make_typescript():
        print(gen.NO_TYPESCRIPT)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
