"""A soak: a whole stack in use for as long as you like. `python -m tests.soak --minutes 60 --kill-every-s 90`.

Programs start runs of an agent that does some of everything, follow them by way of cursors, leave and come back,
answer, send, and cancel; a person follows some of the runs, too, and checks their receipts. Services that are not
killed must not grow.

Exit status 0 when everybody was told each event once and in order, everything was proved, and nothing grew.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from oa_platform.config.callers import SERVICES
from tests.soak.campaign import WORKER, Report, soaked
from tests.soak.growth import MIN_SAMPLES, growth

_MIB = 1 << 20
_SAMPLES_A_LINE = 12


def _line(report: Report) -> str:
    counts = report.tally.counts
    sizes = ", ".join(
        f"{name} {samples[-1].memory_bytes / _MIB:.0f}" for name in SERVICES if (samples := report.longest(name))
    )
    return f"{counts['runs']} runs, {counts['events']} events, {report.kills} kills; MiB: {sizes}\n"


def _note(report: Report) -> None:
    if len(report.longest(WORKER)) % _SAMPLES_A_LINE == 0:  # it is never killed
        sys.stdout.write(_line(report))
        sys.stdout.flush()


def _summary(report: Report) -> str:
    lines = [f"{count:9,d}  {kind}" for kind, count in sorted({**report.tally.counts, "kills": report.kills}.items())]
    for name in (*SERVICES, WORKER):
        samples = report.longest(name)
        if len(samples) >= MIN_SAMPLES:
            memory = growth([sample.memory_bytes for sample in samples])
            handles = growth([sample.descriptors for sample in samples])
            lines.append(
                f"{name}: {memory.early / _MIB:.1f} -> {memory.late / _MIB:.1f} MiB,"
                f" {handles.early:.0f} -> {handles.late:.0f} descriptors, in {len(samples)} samples"
            )
    return "\n".join([*lines, *(report.complaints or ["clean"])]) + "\n"


def main() -> int:
    """Run once and print the report."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--programs", type=int, default=8, help="runs at a time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sample-s", type=float, default=5.0, help="between two looks at the processes")
    parser.add_argument("--kill-every-s", type=float, help="kill -9 a service that often on average; without it, none")
    arguments = parser.parse_args()
    ends = time.monotonic() + arguments.minutes * 60
    with tempfile.TemporaryDirectory(prefix="oa-soak-") as folder:
        work = soaked(
            Path(folder),
            lambda: time.monotonic() < ends,
            programs=arguments.programs,
            seed=arguments.seed,
            sample_s=arguments.sample_s,
            kill_every_s=arguments.kill_every_s,
            note=_note,
        )
        report = asyncio.run(work)
    sys.stdout.write(_summary(report))
    return 1 if report.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
