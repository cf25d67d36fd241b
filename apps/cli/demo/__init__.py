"""`oa demo`: the whole path on a real run, shown to a person and checked to the last byte.

story   what is done and what must hold
view    how it is told
parts   the stack and the worker process
"""
