"""How a service starts, talks, and stops: what the four services have in common and what is no business of theirs.

Import from the modules; `oa_platform.process` shows what a service's `__main__` looks like.
"""
