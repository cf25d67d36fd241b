"""The one kind of error that every part of the project raises, and the catalogue of what can be refused.

    raise Refusal("not_found", f"There is no run {run_id}.", field="run_id")

Pure: no I/O, nothing but the generated descriptors of `openagents.common.v1`.
"""

from oa_errors.catalogue import ClientAction, ReasonInfo, all_reasons, is_reason, reason_info, reason_of_number
from oa_errors.refusal import Refusal
from oa_errors.rules import check_rules

__all__ = [
    "ClientAction",
    "ReasonInfo",
    "Refusal",
    "all_reasons",
    "check_rules",
    "is_reason",
    "reason_info",
    "reason_of_number",
]
