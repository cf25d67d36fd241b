"""See services/projector/tests/fixtures.py."""

from services.projector.tests.fixtures import doors, limits, postgres, rig

__all__ = ["doors", "limits", "postgres", "rig"]
