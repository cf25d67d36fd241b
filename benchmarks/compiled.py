"""What would a gateway save whose hot path is compiled?

    python -m benchmarks.compiled [--rounds 3] [--json FILE]

In copies of the checkout, mypyc makes C extensions of some modules, and `khala_fanout` and `khala_connect` run over
them in turns. A row is the CPU time of one delivery or one client: the median of the rounds, and their range. This
takes a C compiler, and some minutes.

- **as it is**: a copy with nothing compiled.
- **delivery compiled**: all that is ours between frames that arrive and the transport's `write`.
- **all compiled**: frames, tokens' grants, sessions and connections as well. Left are the sockets, and other libraries.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measure import Figures, report

ROOT = Path(__file__).resolve().parents[1]
DELIVERY = (
    "libs/oa_khala/feed.py",
    "libs/oa_khala/server/commands.py",
    "libs/oa_khala/server/subscriptions.py",
    "services/khala_gateway/connections/app/delivery.py",
    "services/khala_gateway/connections/app/subscriber.py",
    "services/khala_gateway/feeds/app/arrivals.py",
    "services/khala_gateway/feeds/app/cohort.py",
    "services/khala_gateway/feeds/app/entries.py",
    "services/khala_gateway/feeds/app/flusher.py",
    "services/khala_gateway/feeds/app/topic_feed.py",
)
ALL = (
    *DELIVERY,
    "libs/oa_khala/cursors.py",
    "libs/oa_khala/frames.py",
    "libs/oa_khala/grants.py",
    "libs/oa_khala/server/admission.py",
    "libs/oa_khala/server/deadlines.py",
    "libs/oa_khala/server/parts.py",
    "libs/oa_khala/server/session.py",
    "libs/oa_khala/server/states.py",
    "libs/oa_khala/server/tokens.py",
    "libs/oa_khala/topics.py",
    "libs/oa_khala/wire.py",
    "services/khala_gateway/connections/app/connection.py",
    "services/khala_gateway/connections/app/timer.py",
    "services/khala_gateway/feeds/app/confirmations.py",
    "services/khala_gateway/feeds/app/hub.py",
    "services/khala_gateway/feeds/app/kept_pages.py",
    "services/khala_gateway/feeds/app/replays.py",
    "services/khala_gateway/feeds/domain.py",
)
SUBJECTS = {"as it is": (), "delivery compiled": DELIVERY, "all compiled": ALL}
_BUILD = """
import sys
from mypyc.build import mypycify
from setuptools import setup
arguments = ["--quiet", "build_ext", "--build-lib", "built"]
setup(name="hot", packages=[], ext_modules=mypycify(sys.argv[1:]), script_args=arguments)
"""
# mypyc makes native subclasses only of few builtin classes.
_BASE = ("libs/oa_khala/server/commands.py", "(AssertionError)", "(Exception)")


def copy_compiled(folder: Path, modules: Sequence[str]) -> Path:
    """Copy the benchmarks and our code, and compile these modules in the copy. Raises CalledProcessError."""
    for name in ("benchmarks", "gen", "libs", "services"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    if not modules:
        return folder
    where, old, new = _BASE
    text = (folder / where).read_text("utf-8")
    assert old in text
    (folder / where).write_text(text.replace(old, new), "utf-8")
    command = [sys.executable, "-W", "ignore", "-c", _BUILD, *modules]
    subprocess.run(command, cwd=folder, env=_env(folder), check=True, stdout=subprocess.DEVNULL)
    for built in (folder / "built").rglob("*.so"):
        place = built.relative_to(folder / "built")
        home = folder / "libs" if (folder / "libs" / place.parts[0]).is_dir() else folder
        shutil.move(built, home / place)
    return folder


def _env(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(folder / name) for name in ("", "libs", "gen"))}


def measured(folder: Path) -> Iterator[tuple[str, float]]:
    """The name of each thing measured, floors included, and the seconds of CPU that one of it took."""
    for benchmark in ("khala_fanout", "khala_connect"):
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            command = [sys.executable, "-m", f"benchmarks.{benchmark}", "--json", file.name]
            subprocess.run(command, cwd=folder, env=_env(folder), check=True, stdout=subprocess.DEVNULL)
            for row in json.loads(Path(file.name).read_text("utf-8"))["rows"]:
                name = row["setting"] if row["subject"] == "khala_gateway" else f"{row['subject']} {row['setting']}"
                yield f"{benchmark}: {name}", row["seconds"] / row["events"]


def rows_of(costs: dict[str, dict[str, list[float]]]) -> Iterator[Figures]:
    """A row for each thing measured and each subject; `costs` are in seconds, one for each round."""
    for what, by_subject in costs.items():
        usual = statistics.median(next(iter(by_subject.values())))
        for subject, rounds in by_subject.items():
            middle, least, most = statistics.median(rounds), min(rounds), max(rounds)
            note = f"{middle * 1e6:.2f} ({least * 1e6:.2f} to {most * 1e6:.2f}) µs, {middle / usual:.2f}"
            yield Figures(subject, what, len(rounds), sum(rounds), note=note)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    costs: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory(prefix="oa-bench-compiled-") as folder:
        places = {}
        for number, (subject, modules) in enumerate(SUBJECTS.items()):
            places[subject] = copy_compiled(Path(folder) / str(number), modules)
        for _ in range(arguments.rounds):
            for subject, place in places.items():
                for what, seconds in measured(place):
                    costs[what][subject].append(seconds)
    report("A gateway with compiled modules, CPU time of one", list(rows_of(costs)), arguments.json)


if __name__ == "__main__":
    main()
