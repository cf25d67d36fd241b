"""A good request for every method. `tests/fuzz/test_methods.py` fails for a method that has none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from oa_platform.system.ids import new_id
from tests.fuzz.scene import Lease, Scene

Json = Any
Example = Callable[[Scene, str], Awaitable[list[Json]]]
"""Takes the scene and the process that is to be called; gives good requests, or the messages of a good stream."""


def _fixed(document: Json) -> Example:
    async def example(_scene: Scene, _process: str) -> list[Json]:
        return [document]

    return example


# ------------------------------------------------------------------------------------------------- control


async def _start_challenge(scene: Scene, _: str) -> list[Json]:
    return [{"email": f"{new_id('key')}@example.org", "device_id": scene.ann.device_id}]


async def _verify_challenge(scene: Scene, _: str) -> list[Json]:
    challenge, code, device = await scene.challenge(new_id("key").lower())
    return [{"challenge_id": challenge, "code": code, "device_id": device}]


async def _start_provider_sign_in(_scene: Scene, _: str) -> list[Json]:
    return [{"provider": "oidc", "device_id": new_id("dev"), "redirect_uri": "http://127.0.0.1:4711/callback"}]


async def _finish_provider_sign_in(scene: Scene, _: str) -> list[Json]:
    return [await scene.provider_sign_in()]


async def _refresh_session(scene: Scene, _: str) -> list[Json]:
    person = await scene.sign_in("ann")
    return [{"refresh_token": person.refresh_token, "device_id": person.device_id}]


async def _delete_account(scene: Scene, _: str) -> list[Json]:
    scene.going = await scene.sign_in(new_id("key").lower())
    # The first use of a session's token is stored; later ones change nothing.
    await scene.edge.call("openagents.control.v1.SessionService/GetCaller", {}, scene.going.access_token)
    return [{"user_id": scene.going.user_id}]


async def _stranger(scene: Scene, _: str) -> list[Json]:
    return [{"person": (await scene.sign_in(new_id("key").lower())).user_id}]


async def _revoke_session(scene: Scene, _: str) -> list[Json]:
    return [{"session_id": (await scene.sign_in("ann")).session_id}]


async def _revoke_sessions(scene: Scene, _: str) -> list[Json]:
    return [{"device_id": (await scene.sign_in("ann")).device_id, "keep_current": True}]


async def _revoke_service_account(scene: Scene, _: str) -> list[Json]:
    return [{"service_account_id": (await scene.service_account(scene.ann))["service_account"]}]


async def _exchange_key(scene: Scene, _: str) -> list[Json]:
    return [{"api_key": (await scene.service_account(scene.ann))["api_key"], "use": "TOKEN_USE_EDGE"}]


async def _create_org(scene: Scene, _: str) -> list[Json]:
    await scene.org()  # nothing else is hers then
    return [{"name": "n"}]


async def _switch_org(scene: Scene, _: str) -> list[Json]:
    return [{"org_id": scene.ann.org_id}]


async def _org(scene: Scene, _: str) -> list[Json]:
    return [{"org_id": (await scene.org()).org_id}]


async def _rename_org(scene: Scene, _: str) -> list[Json]:
    return [{"org_id": (await scene.org()).org_id, "name": "n"}]


async def _member(scene: Scene, _: str) -> list[Json]:
    org = await scene.org()
    return [{"org_id": org.org_id, "user_id": org.member_id}]


async def _set_member_role(scene: Scene, _: str) -> list[Json]:
    org = await scene.org()
    return [{"org_id": org.org_id, "user_id": org.member_id, "role": "ORG_ROLE_ADMIN"}]


async def _leave_org(scene: Scene, _: str) -> list[Json]:
    return [{"org_id": (await scene.org(two_owners=True)).org_id}]


async def _list_members(scene: Scene, _: str) -> list[Json]:
    return [{"org_id": (await scene.org()).org_id, "page_size": 10}]


async def _create_invitation(scene: Scene, _: str) -> list[Json]:
    org = await scene.org()
    return [{"org_id": org.org_id, "email": f"{new_id('key')}@example.org", "role": "ORG_ROLE_VIEWER"}]


async def _sent_invitation(scene: Scene, _: str) -> list[Json]:
    org = await scene.org()
    return [{"org_id": org.org_id, "invitation_id": await scene.invitation(org.org_id)}]


async def _resend_invitation(scene: Scene, _: str) -> list[Json]:
    org = await scene.org()
    invitation_id = await scene.invitation(org.org_id)
    await scene.watch.fetchval("UPDATE control.invitations SET sent_at = sent_at - interval '1 hour'")
    return [{"org_id": org.org_id, "invitation_id": invitation_id}]


async def _own_invitation(scene: Scene, _: str) -> list[Json]:
    return [{"invitation_id": await scene.invitation_of_ann()}]


async def _create_api_key(scene: Scene, _: str) -> list[Json]:
    account = (await scene.service_account(scene.ann))["service_account"]
    return [{"service_account_id": account, "name": "n", "scopes": ["runs.read"], "ttl_seconds": 3600}]


async def _list_api_keys(scene: Scene, _: str) -> list[Json]:
    return [{"service_account_id": (await scene.service_account(scene.ann))["service_account"]}]


async def _rotate_api_key(scene: Scene, _: str) -> list[Json]:
    api_key_id = (await scene.service_account(scene.ann))["api_key_id"]
    return [{"api_key_id": api_key_id, "overlap_seconds": 86_400, "idempotency_key": "rotation-1"}]


async def _revoke_api_key(scene: Scene, _: str) -> list[Json]:
    return [{"api_key_id": (await scene.service_account(scene.ann))["api_key_id"]}]


async def _block(_scene: Scene, _: str) -> list[Json]:
    return [{"subject": (await _scene.service_account(_scene.bob))["service_account"]}]


async def _unblock(scene: Scene, process: str) -> list[Json]:
    blocked = await _block(scene, process)
    await scene.rpc.operate("BlockService/BlockSubject", blocked[0])
    return blocked


async def _person(scene: Scene, _: str) -> list[Json]:
    return [{"person": scene.bob.user_id}]


async def _org_and_person(scene: Scene, process: str) -> list[Json]:
    (org,) = await _org(scene, process)
    return [{**org, "person": scene.bob.user_id}]


async def _session_of_a_person(scene: Scene, _: str) -> list[Json]:
    stranger = await scene.sign_in(new_id("key").lower())
    return [{"person": stranger.user_id, "session_id": stranger.session_id}]


async def _authorize(scene: Scene, _: str) -> list[Json]:
    who = {"kind": "PRINCIPAL_KIND_USER", "subject": scene.ann.user_id, "org_id": scene.ann.org_id}
    return [{"principal": who, "required_scope": "runs.read", "owner_org_id": scene.ann.org_id}]


async def _mint_sync_token(scene: Scene, _: str) -> list[Json]:
    topic = f"run:{await scene.run(scene.ann)}:events"
    return [{"topics": [topic], "ttl_seconds": 300, "surface": "cli"}]


# ------------------------------------------------------------------------------------------------- runs


async def _create_run(_scene: Scene, _: str) -> list[Json]:
    words = {"adapter": "none", "title": "t", "thread_id": "th", "retention_class": "default"}
    retry = {"max_failures": 2, "initial_delay_ms": 1, "max_delay_ms": 2, "reasons": ["agent_error"]}
    queue = {
        "priority": 1,
        "not_before_time": "2026-11-27T00:00:00Z",
        "start_timeout_ms": 3_600_000,
        "run_timeout_ms": 3_600_000,
        "concurrency": {"key": "k", "limit": 2},
        "retry": retry,
    }
    about = {**words, "labels": {"team": "search"}, "queue": queue, "thread_policy": "THREAD_POLICY_ENQUEUE"}
    command = {"argv": ["git", "log"], "working_directory": "/", "environment": {"A": "b"}, "timeout_ms": 1000}
    return [
        {"idempotency_key": new_id("key"), "spec": {**about, "exec": command}},
        {"idempotency_key": new_id("key"), "spec": {**about, "prompt": {"text": "hello"}}},
    ]


async def _open_run(scene: Scene, _: str) -> list[Json]:
    return [{"run_id": await scene.run(scene.ann)}]


async def _send_input(scene: Scene, _: str) -> list[Json]:
    return [{"run_id": await scene.run(scene.ann), "idempotency_key": new_id("key"), "input_json": '{"say":"hello"}'}]


async def _asked(scene: Scene) -> Lease:
    lease = await scene.lease()
    asked = {"request_id": "r1", "kind": "REQUEST_KIND_APPROVAL", "title": "Order?", "default_option": "no"}
    await scene.append(lease, {"request_opened": asked})
    return lease


async def _answer_request(scene: Scene, _: str) -> list[Json]:
    return [{"run_id": (await _asked(scene)).run_id, "request_id": "r1", "option": "yes", "text": ""}]


async def _expire_request(scene: Scene, _: str) -> list[Json]:
    lease = await _asked(scene)
    return [{"run_id": lease.run_id, "lease_epoch": lease.epoch, "request_id": "r1"}]


async def _start_child(scene: Scene, _: str) -> list[Json]:
    lease = await scene.lease()
    spec = {"adapter": "none", "agent": {"input_json": "{}"}}
    about = {"run_id": lease.run_id, "lease_epoch": lease.epoch}
    return [{**about, "child_id": "c1", "spec": spec, "cancel_with_parent": True}]


async def _cancel_run(scene: Scene, _: str) -> list[Json]:
    return [{"run_id": await scene.run(scene.ann), "reason": "enough"}]


async def _finished_run(scene: Scene, _: str) -> list[Json]:
    return [{"run_id": await scene.finished_run()}]


async def _summarised_run(scene: Scene, _: str) -> list[Json]:
    return [{"run_id": await scene.summarised_run()}]


async def _consistency(scene: Scene, _: str) -> list[Json]:
    await scene.finished_run()
    return [{"old_size": 1, "new_size": 1}]


async def _artifact(scene: Scene, _: str) -> list[Json]:
    return [{"run_id": await scene.finished_run(), "offset": 0}]


# ------------------------------------------------------------------------------------------------- schedules


async def _create_schedule(_scene: Scene, _: str) -> list[Json]:
    command = {"argv": ["git", "log"], "working_directory": "/", "environment": {"A": "b"}, "timeout_ms": 1000}
    about = {"overlap": "OVERLAP_POLICY_ALLOW", "catch_up_ms": 60000, "spec": {"adapter": "none", "exec": command}}
    cron = {"expression": "0 0 1 1 *", "time_zone": "Europe/Zurich"}
    interval = {"every_ms": 315360000000, "anchor_time": "2026-01-01T00:00:00Z"}
    return [
        {"idempotency_key": new_id("key"), "name": new_id("key").lower(), "cron": cron, **about},
        {"idempotency_key": new_id("key"), "name": new_id("key").lower(), "interval": interval, **about},
    ]


async def _schedule(scene: Scene, _: str) -> list[Json]:
    return [{"schedule": await scene.schedule(scene.ann)}]


async def _pause_schedule(scene: Scene, _: str) -> list[Json]:
    return [{"schedule": await scene.schedule(scene.ann), "reason": "holidays"}]


async def _trigger_schedule(scene: Scene, _: str) -> list[Json]:
    return [{"schedule": await scene.schedule(scene.ann), "idempotency_key": new_id("key")}]


async def _backfill_schedule(scene: Scene, _: str) -> list[Json]:
    span = {"from_time": "2025-06-01T00:00:00Z", "to_time": "2026-06-01T00:00:00Z"}
    return [{"schedule": await scene.schedule(scene.ann), **span}]


# ------------------------------------------------------------------------------------------------- workers

EVENTS: list[Json] = [
    {"text_delta": {"stream": "TEXT_STREAM_STDOUT", "data": "aGVsbG8="}},
    {"tool_call": {"call_id": "c1", "name": "add", "arguments": {"a": 1}}},
    {"tool_result": {"call_id": "c1", "failed": False, "result": 4}},
    {"message": {"role": "MESSAGE_ROLE_USER", "text": "hello"}},
    {"verification": {"name": "tests", "passed": True, "detail": "12"}},
    {"usage": {"model": "m", "input_tokens": 1, "output_tokens": 2, "cached_input_tokens": 3}},
    {"custom": {"type": "acme.progress", "data": {"percent": 1}}},
    {"request_opened": {"request_id": "r9", "kind": "REQUEST_KIND_TEXT", "title": "Why?", "detail": "d"}},
    {"step_completed": {"ordinal": 1, "name": "s", "fingerprint": "A" * 43 + "=", "result_json": "{}"}},
    {"checkpoint_saved": {"number": 1, "state_json": "{}"}},
    {"progress_reported": {"text": "3 of 10", "done": "3", "total": "10"}},
    {"codex_event": {"turn": {"turn_id": "t", "status": "TURN_STATUS_COMPLETED", "message": "m"}}},
    {"codex_event": {"item": {"turn_id": "t", "item_id": "i", "item_type": "x", "content": {}}}},
    {"codex_event": {"control_request": {"request_id": "r", "action": "approve", "detail": {}}}},
    {"codex_event": {"control_receipt": {"request_id": "r", "outcome": "CONTROL_OUTCOME_APPLIED", "message": "m"}}},
]
"""One of each kind that a worker may append and that doesn't end the run."""
FINISH: Json = {
    "run_finished": {
        "outcome": "RUN_OUTCOME_FAILED",
        "reason": "nonzero_exit",
        "message": "m",
        "exec": {"exit_code": 1, "signal": 0, "duration_ms": 1, "stdout_bytes": 1, "stderr_bytes": 1},
    }
}


def _append(lease: Lease, events: list[Json]) -> Json:
    return {
        "request_id": 7,
        "run_id": lease.run_id,
        "lease_epoch": lease.epoch,
        "idempotency_key": new_id("key"),
        "events": events,
    }


async def _append_events(scene: Scene, _: str) -> list[Json]:
    return [_append(await scene.lease(), EVENTS), _append(await scene.lease(), [FINISH])]


async def _read_held_run(scene: Scene, _: str) -> list[Json]:
    lease = await scene.lease()
    newest = {"run_id": lease.run_id, "lease_epoch": lease.epoch, "types": ["run.started"], "newest_only": True}
    return [{"run_id": lease.run_id, "lease_epoch": lease.epoch, "after_seq": 1}, newest]


async def _attach(scene: Scene, _: str) -> list[Json]:
    """One stream with each of its messages. Its worker has an adapter that no run asks for, so it holds nothing: its
    append is refused, and its stream goes on."""
    lease = await scene.lease()
    held = [{"run_id": lease.run_id, "lease_epoch": lease.epoch}]
    about = {"name": "spare", "adapters": ["nothing"], "max_concurrent_runs": 1000}
    hello = {"worker_id": scene.spare_worker_id, **about, "held_leases": held}
    return [
        {"attach": hello},
        {"heartbeat": {"held_leases": held}},
        {"append": _append(lease, [EVENTS[0]])},
        {"drain": {}},
        {"goodbye": {}},
    ]


# ------------------------------------------------------------------------------------------------- topics and log


async def _topic(scene: Scene, process: str) -> str:
    return f"run:{await scene.run(scene.ann)}:events" if process == "runtime" else f"user:{scene.ann.user_id}:runs"


async def _describe_topic(scene: Scene, process: str) -> list[Json]:
    return [{"topic": await _topic(scene, process)}]


async def _watch_topics(scene: Scene, process: str) -> list[Json]:
    topic = await _topic(scene, process)
    return [{"add_topics": [topic]}, {"remove_topics": [topic]}]


async def _replay_topic(scene: Scene, process: str) -> list[Json]:
    table = {
        "runtime": "SELECT log_epoch FROM runtime.installation",
        "projector": "SELECT epoch FROM projection.journal_epoch",
    }
    epoch = await scene.watch.fetchval(table[process])
    page = {"after_seq": 0, "max_frames": 10, "max_bytes": 1000}
    return [{"topic": await _topic(scene, process), "epoch": epoch, **page}]


async def _tail_log(scene: Scene, _: str) -> list[Json]:
    epoch = await scene.watch.fetchval("SELECT log_epoch FROM runtime.installation")
    return [{"epoch": epoch, "after": [{"partition": 0, "position": 0}, {"partition": 1}]}]


_AUDIT_FILTERS = {
    "page_size": 10,
    "actor": "somebody",
    "action": "session.signed_in",
    "target": "something",
    "outcome": "AUDIT_OUTCOME_DONE",
    "since_time": "2026-01-01T00:00:00Z",
    "until_time": "2036-01-01T00:00:00Z",
}


async def _set_route(scene: Scene, _: str) -> list[Json]:
    return [{"group": _ROUTE}]


async def _delete_route(scene: Scene, _: str) -> list[Json]:
    await scene.rpc.operate("RouteService/SetRoute", {"group": _ROUTE})
    return [{"name": _ROUTE["name"]}]


async def _roll_back_routes(scene: Scene, _: str) -> list[Json]:
    for _again in range(3):  # the good request is sent more than once
        await scene.rpc.operate("RouteService/SetRoute", {"group": _ROUTE})
    return [{}]


_ROUTE: Json = {"name": "fuzz", "prefixes": ["/fuzz"], "percent": 1}


def _of(service: str, **examples: Example) -> Mapping[str, Example]:
    return {f"openagents.{service}/{method}": example for method, example in examples.items()}


EXAMPLES: Mapping[str, Example] = {
    **_of("control.v1.AccountService", GetAccountDeletion=_fixed({}), DeleteAccount=_delete_account),
    **_of(
        "control.v1.AuditService",
        ListAuditEvents=_fixed(_AUDIT_FILTERS),
        ListOwnAuditEvents=_fixed({"page_size": 10}),
        ReadAuditLog=_fixed({"after_sequence": 0}),
    ),
    **_of(
        "control.v1.AuthService",
        StartChallenge=_start_challenge,
        VerifyChallenge=_verify_challenge,
        RefreshSession=_refresh_session,
    ),
    **_of(
        "control.v1.ProviderSignInService",
        ListProviders=_fixed({}),
        StartProviderSignIn=_start_provider_sign_in,
        FinishProviderSignIn=_finish_provider_sign_in,
    ),
    **_of(
        "control.v1.SessionService",
        GetCaller=_fixed({}),
        ListSessions=_fixed({}),
        RevokeSession=_revoke_session,
        RevokeSessions=_revoke_sessions,
        SwitchOrg=_switch_org,
    ),
    **_of(
        "control.v1.OrgService",
        ListOrgs=_fixed({}),
        GetOrg=_org,
        CreateOrg=_create_org,
        RenameOrg=_rename_org,
        DeleteOrg=_org,
        RestoreOrg=_org,
    ),
    **_of(
        "control.v1.MemberService",
        ListMembers=_list_members,
        SetMemberRole=_set_member_role,
        RemoveMember=_member,
        LeaveOrg=_leave_org,
        TransferOwnership=_member,
    ),
    **_of(
        "control.v1.InvitationService",
        CreateInvitation=_create_invitation,
        ListInvitations=_org,
        ResendInvitation=_resend_invitation,
        RevokeInvitation=_sent_invitation,
        ListOwnInvitations=_fixed({}),
        AcceptInvitation=_own_invitation,
        DeclineInvitation=_own_invitation,
    ),
    **_of(
        "control.v1.ServiceAccountService",
        CreateServiceAccount=_fixed({"name": "n", "scopes": ["runs.read"], "ttl_seconds": 3600}),
        ListServiceAccounts=_fixed({}),
        RevokeServiceAccount=_revoke_service_account,
        ExchangeKey=_exchange_key,
    ),
    **_of(
        "control.v1.ApiKeyService",
        CreateApiKey=_create_api_key,
        ListApiKeys=_list_api_keys,
        RotateApiKey=_rotate_api_key,
        RevokeApiKey=_revoke_api_key,
    ),
    **_of(
        "control.v1.InstallationAccountService",
        GetInstallationAccountDeletion=_person,
        DeleteInstallationAccount=_stranger,
    ),
    **_of(
        "control.v1.InstallationAuditService",
        ListInstallationAuditEvents=_fixed(_AUDIT_FILTERS),
        ReadInstallationAuditLog=_fixed({"after_sequence": 0}),
    ),
    **_of(
        "control.v1.InstallationSessionService",
        ListInstallationSessions=_person,
        RevokeInstallationSessions=_session_of_a_person,
    ),
    **_of(
        "control.v1.InstallationOrgService",
        ListInstallationOrgs=_fixed({"person": "bob@example.org", "deleted": False, "page_size": 10}),
        GetInstallationOrg=_org,
        RestoreInstallationOrg=_org,
        SetInstallationOrgOwner=_org_and_person,
    ),
    **_of("control.v1.BlockService", GetSubject=_block, BlockSubject=_block, UnblockSubject=_unblock),
    **_of("control.v1.SigningKeyService", ListSigningKeys=_fixed({}), RotateSigningKey=_fixed({})),
    **_of("control.v1.SyncTokenService", MintSyncToken=_mint_sync_token),
    **_of("control.v1.PolicyService", Authorize=_authorize),
    **_of("control.v1.RevocationService", WatchRevocations=_fixed({"after_position": 1})),
    **_of(
        "control.v1.RouteService",
        GetRoutes=_fixed({}),
        SetRoute=_set_route,
        DeleteRoute=_delete_route,
        RollBackRoutes=_roll_back_routes,
        StartCanary=_fixed({"group": "fuzz", "hold_ms": 1, "min_requests": 1}),
        StartMaintenance=_fixed({"notice": "n", "retry_after_ms": 1}),
        EndMaintenance=_fixed({}),
        CreateBypass=_fixed({"ttl_ms": 1}),
    ),
    **_of(
        "runtime.v1.RunService",
        CreateRun=_create_run,
        GetRun=_open_run,
        SendInput=_send_input,
        ListRequests=_open_run,
        AnswerRequest=_answer_request,
        CancelRun=_cancel_run,
    ),
    **_of(
        "runtime.v1.ScheduleService",
        CreateSchedule=_create_schedule,
        GetSchedule=_schedule,
        ListSchedules=_fixed({"page_size": 10}),
        PauseSchedule=_pause_schedule,
        ResumeSchedule=_schedule,
        TriggerSchedule=_trigger_schedule,
        BackfillSchedule=_backfill_schedule,
        DeleteSchedule=_schedule,
    ),
    **_of(
        "runtime.v1.ReceiptService",
        GetReceipt=_finished_run,
        ListReceiptKeys=_fixed({}),
        GetLogCheckpoint=_fixed({}),
        GetInclusionProof=_finished_run,
        GetConsistencyProof=_consistency,
    ),
    **_of("runtime.v1.ReplayService", ReadReplayArtifact=_artifact),
    **_of("runtime.v1.LogService", TailLog=_tail_log, DescribeLog=_fixed({})),
    **_of("runtime.v1.WorkerWatchService", WatchWorkers=_fixed({"worker_ids": ["wrk_01JD0000000000000000000000"]})),
    **_of(
        "runtime.v1.WorkerService",
        Attach=_attach,
        AppendEvents=_append_events,
        ReadHeldRun=_read_held_run,
        ExpireRequest=_expire_request,
        StartChild=_start_child,
    ),
    **_of(
        "projection.v1.ReadService",
        GetRunSummary=_summarised_run,
        ListRunSummaries=_fixed({"page_size": 10, "status": "RUN_STATUS_CREATED"}),
        ListCheckpoints=_fixed({}),
    ),
    **_of(
        "sync.v1.TopicService",
        DescribeTopic=_describe_topic,
        ReadSnapshot=_describe_topic,
        WatchTopics=_watch_topics,
        ReplayTopic=_replay_topic,
    ),
}
