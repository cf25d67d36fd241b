"""ReadService: whose runs one sees, in what pages."""

from __future__ import annotations

from typing import Any

import pytest

from oa_platform.auth.authenticator import SERVICE_TOKEN_KEY
from openagents.projection.v1 import read_service_pb2
from openagents.runtime.v1 import run_pb2
from services.projector.tests import histories as h
from services.projector.tests.doors import CONTROL, Doors, as_gateway, as_person, refused
from services.projector.tests.rig import Rig


async def run_ids(doors: Doors, metadata: Any, **query: Any) -> tuple[list[str], str]:
    page = await doors.reads.ListRunSummaries(read_service_pb2.ListRunSummariesRequest(**query), metadata=metadata)
    return [summary.run_id for summary in page.summaries], page.next_page_token


async def test_lists_hold_the_callers_own_runs_in_pages(rig: Rig, doors: Doors) -> None:
    events = [event for number in range(5) for event in h.whole_run(number)]
    events += h.whole_run(5, user_id=h.OTHER_USER) + h.whole_run(6, org_id=h.OTHER_ORG)
    await rig.apply(await rig.checkpoint(), events)
    collected, token = await run_ids(doors, as_person(), page_size=2)
    while token:
        page, token = await run_ids(doors, as_person(), page_size=2, page_token=token)
        collected += page
    assert collected == [h.ulid("run", n) for n in (4, 3, 2, 1, 0)]
    assert (await run_ids(doors, as_person(h.ulid("sva", 1))))[0] == [h.ulid("run", n) for n in (5, 4, 3, 2, 1, 0)]
    assert await run_ids(doors, as_person(h.ulid("usr", 9))) == ([], "")


async def test_a_list_is_of_ones_own_runs_or_of_the_orgs(rig: Rig, doors: Doors) -> None:
    account = h.ulid("sva", 1)
    events = h.whole_run(0) + h.whole_run(1, user_id=account) + h.whole_run(2, user_id=h.OTHER_USER)
    await rig.apply(await rig.checkpoint(), [*events, *h.whole_run(3, org_id=h.OTHER_ORG)])
    own, org = read_service_pb2.LISTED_RUNS_OWN, read_service_pb2.LISTED_RUNS_ORG
    for who, listed, numbers in (
        (as_person(), own, [0]),
        (as_person(), org, [2, 1, 0]),
        (as_person(account), own, [1]),
        (as_person(account), org, [2, 1, 0]),
        (as_person(org_id=h.OTHER_ORG), org, [3]),
    ):
        assert (await run_ids(doors, who, runs=listed))[0] == [h.ulid("run", number) for number in numbers]


async def test_a_list_is_narrowed_by_the_beginning_of_the_ids(rig: Rig, doors: Doors) -> None:
    await rig.fill(12)
    ids = [h.ulid("run", number) for number in range(12)]
    for prefix in ("run_", ids[3][:-1], ids[3], ids[11][:-1], ids[11][:-2] + "ZZ"):
        expected = sorted((each for each in ids if each.startswith(prefix)), reverse=True)
        assert (await run_ids(doors, as_person(), run_id_prefix=prefix))[0] == expected
    for wrong in ("x", "run_%", "run_I", ids[0] + "0"):
        refusal = await refused(run_ids(doors, as_person(), run_id_prefix=wrong))
        assert (refusal.reason, refusal.field) == ("invalid_value", "run_id_prefix")


async def test_a_page_has_50_runs_unless_asked_otherwise(rig: Rig, doors: Doors) -> None:
    await rig.fill(51)
    page, token = await run_ids(doors, as_person())
    assert len(page) == 50
    assert len((await run_ids(doors, as_person(), page_token=token))[0]) == 1


async def test_a_page_token_is_good_for_its_own_query_only(rig: Rig, doors: Doors) -> None:
    await rig.fill()
    _, token = await run_ids(doors, as_person(), page_size=2)
    assert token
    others: list[tuple[Any, dict[str, Any]]] = [
        (as_person(h.OTHER_USER), {"page_token": token}),
        (as_person(org_id=h.OTHER_ORG), {"page_token": token}),
        (as_person(), {"page_token": token, "status": run_pb2.RUN_STATUS_FAILED}),
        (as_person(), {"page_token": token, "runs": read_service_pb2.LISTED_RUNS_ORG}),
        (as_person(), {"page_token": token, "run_id_prefix": "run_"}),
        (as_person(), {"page_token": "x" + token}),
        (as_person(), {"page_token": token[:-3]}),
        (as_person(), {"page_token": "äöü"}),
        (as_person(), {"page_token": "AAAA"}),
    ]
    for metadata, query in others:
        refusal = await refused(run_ids(doors, metadata, **query))
        assert (refusal.reason, refusal.field) == ("invalid_page_token", "page_token")


async def test_a_run_is_for_those_who_act_in_its_org(rig: Rig, doors: Doors) -> None:
    """Not for the person who started it, once that person acts in another one: as after a removal."""
    await rig.fill(1)
    request = read_service_pb2.GetRunSummaryRequest(run_id=h.ulid("run", 0))
    for reader in (as_person(), as_person(h.OTHER_USER)):
        summary = (await doors.reads.GetRunSummary(request, metadata=reader)).summary
        assert (summary.run_id, summary.user_id) == (h.ulid("run", 0), h.USER)
    nobodys = await refused(
        doors.reads.GetRunSummary(read_service_pb2.GetRunSummaryRequest(run_id=h.ulid("run", 77)), metadata=as_person())
    )
    assert nobodys.reason == "not_found"
    for other in (as_person(h.OTHER_USER, h.OTHER_ORG), as_person(org_id=h.OTHER_ORG)):
        denied = await refused(doors.reads.GetRunSummary(request, metadata=other))
        assert (denied.reason, denied.message) == (nobodys.reason, nobodys.message)


async def test_reads_need_a_principal_with_the_scope(doors: Doors) -> None:
    request = read_service_pb2.ListRunSummariesRequest()
    for metadata, reason in (
        (as_person(scopes=()), "missing_scope"),
        (((SERVICE_TOKEN_KEY, CONTROL),), "missing_authorization"),
        (as_gateway(), "service_not_accepted"),
    ):
        assert (await refused(doors.reads.ListRunSummaries(request, metadata=metadata))).reason == reason


@pytest.mark.parametrize(
    ("query", "field"),
    [({"page_size": 201}, "page_size"), ({"status": 99}, "status"), ({"page_token": "x" * 513}, "page_token")],
)
async def test_bad_queries_name_their_field(doors: Doors, query: dict[str, Any], field: str) -> None:
    refusal = await refused(run_ids(doors, as_person(), **query))
    assert refusal.field == field
    assert refusal.reason in ("invalid_value", "invalid_enum")


async def test_checkpoints_are_for_control(rig: Rig, doors: Doors) -> None:
    await rig.fill(1)
    request = read_service_pb2.ListCheckpointsRequest()
    answer = await doors.reads.ListCheckpoints(request, metadata=((SERVICE_TOKEN_KEY, CONTROL),))
    (checkpoint,) = answer.checkpoints
    assert (checkpoint.projection, checkpoint.version, checkpoint.epoch) == ("run_summaries", 1, "log_test")
    assert (checkpoint.applied.partition, checkpoint.applied.position) == (0, len(h.whole_run(0)))
    refusal = await refused(doors.reads.ListCheckpoints(request, metadata=as_gateway()))
    assert (refusal.reason, refusal.metadata["callers"]) == ("caller_not_allowed", "control")
