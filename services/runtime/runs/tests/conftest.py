"""Fixtures of these tests."""

from services.runtime.tests.fixtures import runtime, who

__all__ = ["runtime", "who"]
