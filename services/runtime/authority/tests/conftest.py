"""Fixtures of these tests."""

from services.runtime.tests.fixtures import who

__all__ = ["who"]
