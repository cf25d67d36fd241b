"""`oa demo`: the whole path on a real run, shown to a person and checked to the last byte.

story   the steps, and the checks that must hold
view    how they are shown
parts   the stack and the worker process
"""
