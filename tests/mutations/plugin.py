"""A plugin of pytest that runs tests with a mutation: which, the environment says."""

import contextlib
import os

import pytest

from tests.mutations.catalogue import MUTATIONS
from tests.mutations.hunt import VARIABLE


def pytest_configure(config: pytest.Config) -> None:
    """Plants the defect for the whole run."""
    planted = contextlib.ExitStack()
    planted.enter_context(MUTATIONS[os.environ[VARIABLE]].applied())
    config.add_cleanup(planted.close)
