"""All of Autobahn's cases that concern the gateway, or some: `python -m tests.autobahn 7.1.* 9.1.*`."""

import argparse
import asyncio
import sys
from collections import Counter
from itertools import groupby

from tests.autobahn.suite import GROUPS, defects, group_of, results


def main() -> int:
    """Say for each group what its cases found, and which failed; the status is 1 when one did."""
    parser = argparse.ArgumentParser(description="Run Autobahn's cases against the gateway's sockets.")
    parser.add_argument("cases", nargs="*", default=GROUPS, help="groups or cases, for example 7.1.*")
    found = asyncio.run(results(parser.parse_args().cases))
    for group, members in groupby(found, group_of):
        counts = Counter(case.behavior.value for case in members)
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
        sys.stdout.write(f"group {group:>2}: {verdicts}\n")
    wrong = defects(found)
    sys.stdout.writelines(f"{line}\n" for line in (*wrong, f"{len(found)} cases, {len(wrong)} failed"))
    return 1 if wrong or not found else 0


if __name__ == "__main__":
    raise SystemExit(main())
