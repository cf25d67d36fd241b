"""Actions that are performed once for a run.

`steps` finds or performs one, `calling` calls its function, and `within` keeps that from asking its run for something.
"""
