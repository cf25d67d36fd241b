"""What a program does before its other imports, because these read the environment and make many objects.

    from oa_platform.process.first import before_imports

    before_imports()
    ...  # the other imports

That is for services. Programs that end soon, or that are mostly somebody else's, call `silence_grpc` only, and
`leave_out` if they know what they don't need.
"""

from __future__ import annotations

import os
import sys

from oa_platform.process.gc_pauses import hold_garbage_collection


def before_imports() -> None:
    """Call as the first thing in a service's process."""
    hold_garbage_collection()
    silence_grpc()
    # No service's image has rich. Where `oa` is installed, too, structlog would load it for pretty tracebacks and httpx
    # for a command line, which no service has: a seventh of what its start costs.
    leave_out("rich", "httpx._main")


def silence_grpc() -> None:
    """Keep the log lines of gRPC's core off stderr; call before gRPC is imported, which reads the variable then.

    They are for gRPC's developers, in a format of their own among the records of the log: one for each port scan and
    each connection that breaks. Whoever sets GRPC_VERBOSITY gets them.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def leave_out(*modules: str) -> None:
    """Make `modules` impossible to import in this process; call before what would import them if they were there."""
    for module in modules:
        sys.modules.setdefault(module, None)  # type: ignore[arg-type]
