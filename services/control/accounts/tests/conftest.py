"""Fixtures of these tests."""

from services.control.tests.fixtures import admin, cases, control

__all__ = ["admin", "cases", "control"]
