"""Ends pods when the process that started them has ended, also by SIGKILL. Run as a program.

It reads process ids, one to a line, and sends SIGKILL to all of them when there is nobody any more who could write one.
A process of that id that came later is left alone.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress


def main() -> None:
    """Until the end of the input."""
    pods: list[int] = []
    for line in sys.stdin:
        with suppress(ProcessLookupError):
            pods.append(os.pidfd_open(int(line)))
    for pod in pods:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pod, signal.SIGKILL)


if __name__ == "__main__":
    main()
