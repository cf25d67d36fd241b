"""What its events make of a run.

- `run`: the state, as a plain value. `transitions`: the table of statuses. `lawful`: the rules beyond the table.
- `reducer`: events -> state. `form`: a state as canonical JSON, and its hash.
"""

from oa_runlog.state.run import FINAL_STATUS, MAX_TOTAL, TOTAL_NAMES, RunState, RunStatus, Totals

__all__ = ["FINAL_STATUS", "MAX_TOTAL", "TOTAL_NAMES", "RunState", "RunStatus", "Totals"]
