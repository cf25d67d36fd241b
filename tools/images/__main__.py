"""Build the images: `python -m tools.images [TARGET…] [--fresh-base] [--no-cache]`; all of them when none is named."""

from __future__ import annotations

import argparse
import subprocess
import sys

from tools.images.build import RESULTS, NotBuilt, Release, build
from tools.images.targets import TARGETS


def main() -> int:
    """Return status 1 if an image could not be built, and 2 if no image can be built here."""
    parser = argparse.ArgumentParser(prog="python -m tools.images", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--fresh-base", action="store_true", help="make the base anew, with today's packages")
    parser.add_argument("--no-cache", action="store_true", help="do every step again, as for a release")
    arguments = parser.parse_args()
    if unknown := set(arguments.targets) - set(TARGETS):
        parser.error(f"there is no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    try:
        chosen = [TARGETS[name] for name in arguments.targets or TARGETS]
        tags = build(chosen, Release.of_checkout(), fresh=arguments.fresh_base, cached=not arguments.no_cache)
    except NotBuilt as reason:
        sys.stderr.write(f"images: {reason}\n")
        return 2
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"images: {error.cmd[0]} ended with status {error.returncode}; what it said stands above\n")
        return 1
    sys.stdout.write("".join(f"{tag}\n" for tag in tags) + f"bills of materials: {RESULTS}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
