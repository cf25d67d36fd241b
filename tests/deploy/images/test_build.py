"""One image is really built and started, where there are the tools; `make images-test` does it with all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from oa_testing.postgres import Database
from oa_testing.suite.skips import as_root
from tests.deploy.images.checks import defects, has_shell, may_write, migrated, not_migrated
from tests.deploy.images.sandbox import Image, missing_tools, mounted
from tools.images.build import Release, build
from tools.images.targets import TARGETS

TARGET = TARGETS["migrate"]
RELEASE = Release.of_checkout()
# The first build makes the base, too. Only root may look into an image, which is mounted for that.
pytestmark = [
    as_root,
    pytest.mark.skipif(bool(missing_tools()), reason=f"no image was built: {missing_tools()} is not installed"),
    pytest.mark.timeout(3600),
]


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The smallest image."""
    (tag,) = build([TARGET], RELEASE)
    with mounted(tag) as image:
        yield image


def test_an_image_holds_what_it_should_and_makes_the_schema(image: Image, empty_database: Database) -> None:
    assert defects(image, TARGET, RELEASE) == []
    assert not has_shell(image)
    assert not may_write(image)
    assert not_migrated(migrated(image, TARGET, empty_database)) == []


def test_what_does_not_belong_there_is_seen(image: Image) -> None:
    assert defects(image, TARGETS["worker"], RELEASE) != []
    assert defects(image, TARGET, Release("0", "none", 0)) != []
    assert not_migrated({"control": ["up to date"]}) != []
