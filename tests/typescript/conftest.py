"""What all tests of the TypeScript client can ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.typescript.package import PACKAGE, served


@pytest.fixture
def origin() -> Iterator[str]:
    """Where the package's pages are."""
    with served(PACKAGE) as origin:
        yield origin
