"""How much CPU does `oa` take before it does anything? Beside Python itself, and Python with click and with rich.

python -m benchmarks.start [--rounds 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
_OA = (sys.executable, "-m", "apps.cli")
COMMANDS = {
    "python -c pass": (sys.executable, "-c", "pass"),
    "python -c 'import click'": (sys.executable, "-c", "import click"),
    "python -c 'import rich.console'": (sys.executable, "-c", "import rich.console"),
    "oa --version": (*_OA, "--version"),
    "oa --help": (*_OA, "--help"),
    "oa run list --help": (*_OA, "run", "list", "--help"),
}


def cpu_seconds(command: tuple[str, ...]) -> float:
    """User and system time of one process."""
    path = os.pathsep.join(str(REPOSITORY / part) for part in ("", "libs", "gen"))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)


def main() -> None:
    """Measure the commands in turns, so that a slow moment affects all of them; print the median of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    for command in COMMANDS.values():
        cpu_seconds(command)  # compiles what was not compiled yet
    taken: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(options.rounds):
        for name, command in COMMANDS.items():
            taken[name].append(cpu_seconds(command))
    for name, seconds in taken.items():
        print(f"{name:<34}{statistics.median(seconds):6.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")
    if options.json:
        options.json.write_text(json.dumps(taken, indent=2) + "\n")


if __name__ == "__main__":
    main()
