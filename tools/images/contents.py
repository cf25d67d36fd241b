"""Copy the part of our code that an image contains: the modules that its programs import, and its services' migrations.

    python3 -m tools.images.contents TARGET DIRECTORY

It runs where an image is built, and needs only the standard library.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tools.images.imports import ROOTS, imports_of
from tools.images.targets import TARGETS, Target

CHECKOUT = Path(__file__).resolve().parents[2]


def contents(target: Target) -> dict[Path, Path]:
    """Path in the image's code folder -> file of the checkout."""
    modules = imports_of(target.programs, CHECKOUT).ours.values()
    files = {file: _source(file) for file in modules}
    for service in target.migrations:
        for path in sorted((CHECKOUT / "services" / service).rglob("migrations/*.sql")):
            files[path.relative_to(CHECKOUT)] = path
    return files


def _source(file: Path) -> Path:
    return next(CHECKOUT / root / file for root in ROOTS if (CHECKOUT / root / file).is_file())


def main(arguments: list[str]) -> int:
    """Return 0 if everything was copied, 2 for wrong arguments."""
    if len(arguments) != 2 or arguments[0] not in TARGETS:
        sys.stderr.write(f"usage: python3 -m tools.images.contents {'|'.join(TARGETS)} DIRECTORY\n")
        return 2
    for file, source in contents(TARGETS[arguments[0]]).items():
        place = Path(arguments[1], file)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, place)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
