"""The folder for temporary files that all sessions of tests on a machine share, such as the ports that they use."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

SHARED = "TESTS_SHARED_TMPDIR"
"""The variable that names it, once a session has a folder of its own (`oa_testing.suite.left_files`)."""


def shared_temporary() -> Path:
    """Return the folder."""
    return Path(os.environ.get(SHARED) or tempfile.gettempdir())
