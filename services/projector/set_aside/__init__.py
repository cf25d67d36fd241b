"""Runs that a defect keeps from being applied: their entries wait here, in order, until the run can be applied."""
