"""What every test can ask for is documented at the top of `libs/oa_testing/suite/plugin.py`."""

import os
import signal
import sys

import structlog
from hypothesis import settings

from oa_platform.process.descriptors import allow_all_descriptors
from oa_platform.process.first import silence_grpc

pytest_plugins = [
    "oa_testing.suite.forks",
    "oa_testing.suite.garbage",
    "oa_testing.suite.left_changed",
    "oa_testing.suite.left_files",
    "oa_testing.suite.plugin",
    "oa_testing.suite.long_first",
    "oa_testing.suite.measured",
    "oa_testing.suite.open_connections",
    "oa_testing.suite.room_times",
    "oa_testing.suite.skips",
]

# How long one example takes says more about the machine's other work than about ours; pytest-timeout guards the whole.
settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")

# Under nohup SIGHUP is ignored, and behind a shell's & SIGINT and SIGQUIT. Programs that tests start would inherit
# that; a handler of ours they don't.
for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, lambda *_: None)

# Tests are clients and servers at once: 1,024, with which most systems begin, is too few.
allow_all_descriptors()

# As all our programs do; the core would write into whatever a test captures then, from threads of its own.
silence_grpc()

# httpcore looks for it twice in each call, all over the path, and it is not there.
sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]

# Programs that tests start, `oa` some hundred times, would compile all that they load each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Go compiles what tests build for half the time if nobody wants to debug it, or to have it fast.
os.environ.setdefault("GOFLAGS", "'-gcflags=all=-l -dwarf=false' '-ldflags=-s -w'")

# No Postgres of the tests has TLS. Otherwise each connection would make what it needs for TLS, and ask.
os.environ["PGSSLMODE"] = "disable"

# As services log on a terminal: without structlog's default of pretty tracebacks, which take a second each.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)
