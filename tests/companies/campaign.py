"""Many small worlds, each of its own people and orgs in a state by chance, walked beside each other.

Whatever anybody calls in whatever order, nobody gets anything in an org without being a member, nor more than the role
gives.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import grpc.aio

from oa_testing.postgres import Database
from openagents.control.v1.policy_service_pb2_grpc import PolicyServiceStub
from services.control.tests.harness import LOOPBACK, running_control
from tests.companies.walk import Walk

AT_ONCE = 6
"""So many worlds are walked beside each other."""
METHODS = {
    *("GetAccountDeletion", "DeleteAccount"),
    *("CreateOrg", "RenameOrg", "DeleteOrg", "RestoreOrg", "SwitchOrg", "LeaveOrg", "TransferOwnership"),
    *("SetMemberRole", "RemoveMember", "CreateInvitation", "AcceptInvitation", "DeclineInvitation"),
    *("ListMembers", "CreateRun", "GetRun", "MintSyncToken", "CreateServiceAccount"),
}
"""What a campaign has to have called with success."""
REASONS = {"not_found", "org_scope_denied", "org_deleted", "personal_org", "last_owner"}
"""What has to have been refused."""
ROOM: dict[str, Any] = {
    f"OA_CALLS_{kind}_{limit}": "100000"
    for kind in ("READS", "WRITES", "MINTS", "PUBLIC")
    for limit in ("PER_S", "BURST")
}
"""How fast a walk goes decides nothing."""
_DENIALS = "SELECT count(*) FROM control.audit_events WHERE action = 'call.denied' AND reason = 'org_scope_denied'"


@dataclass(frozen=True)
class Report:
    """What was called and how it ended: (method, reason) -> how often, without a reason for a success; by which rule
    the decision point denied; and how many denials the audit log has."""

    worlds: int
    seen: Counter[tuple[str, str]]
    denied_by: Counter[str]
    denials_on_record: int

    @property
    def calls(self) -> int:
        """All calls that the model foresaw."""
        return self.seen.total()

    @property
    def denials(self) -> int:
        """Calls that a role denied."""
        return sum(number for (_, reason), number in self.seen.items() if reason == "org_scope_denied")

    def gaps(self) -> list[str]:
        """What the campaign should have come to and did not."""
        gaps = [f"{name} never succeeded" for name in METHODS - {name for name, reason in self.seen if not reason}]
        gaps += [f"nothing was refused as {reason}" for reason in REASONS - {reason for _, reason in self.seen}]
        if not self.denied_by["POLICY_RULE_ROLE_SCOPE"]:
            gaps.append("the decision point was never asked about what the edge denied for a role")
        if self.denials_on_record != self.denials:
            gaps.append(f"{self.denials} calls were denied, {self.denials_on_record} are on record")
        return sorted(gaps)


async def campaign(database: Database, directory: Path, seed: int, steps: Sequence[int]) -> Report:
    """Walk as many worlds as there are `steps`, each so far. Raises AssertionError for what the model did not
    foresee."""
    async with (
        running_control(database, directory, **ROOM) as control,
        grpc.aio.insecure_channel(f"{LOOPBACK}:{control.grpc_port}") as channel,
        asyncpg.create_pool(database.admin, min_size=1, max_size=2) as pool,
    ):
        policy = PolicyServiceStub(channel)
        worlds = [Walk(control, policy, pool, seed + number) for number in range(len(steps))]
        await _walk_all(worlds, steps)
        on_record = await pool.fetchval(_DENIALS)
    seen = sum((world.seen for world in worlds), Counter[tuple[str, str]]())
    return Report(len(worlds), seen, sum((world.denied_by for world in worlds), Counter[str]()), on_record)


async def _walk_all(worlds: Sequence[Walk], steps: Sequence[int]) -> None:
    room = asyncio.Semaphore(AT_ONCE)

    async def go(world: Walk, far: int) -> None:
        async with room:
            try:
                await world.go(far)
            except BaseException as error:
                error.add_note(f"in the world of seed {world.seed}, walked for {far} steps")
                raise

    async with asyncio.TaskGroup() as group:
        for world, far in zip(worlds, steps, strict=True):
            group.create_task(go(world, far))
