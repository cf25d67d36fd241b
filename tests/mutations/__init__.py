"""Defects planted in the real core of delivery, one at a time: each has to be caught.

    python -m tests.mutations            # all of them, and a table of what caught which
    python -m tests.mutations skip_holes

A mutation that nothing catches is a gap: of the simulation, or of the tests of the room that it stands in.
"""
