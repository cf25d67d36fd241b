"""The commands and reads of a person or a service account, typed. Every method may raise its service's Refusals."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from oa_base.refusal import Refusal
from oa_client.core import wire
from oa_client.core.models import (
    ArtifactPiece,
    Caller,
    InclusionProof,
    NewServiceAccount,
    Page,
    Run,
    ServiceAccount,
    Session,
    SyncGrant,
)
from oa_client.edge.account import Account
from oa_client.edge.audit import Audit
from oa_client.edge.calls import ATTEMPTS, AccessTokens, Edge, M
from oa_client.edge.new_ids import new_idempotency_key
from oa_client.edge.orgs import Orgs
from oa_client.edge.own_keys import OwnKeys
from oa_client.edge.schedules import Schedules
from oa_client.edge.talk import Talk
from oa_runlog import wire as runlog_wire
from oa_runlog.events import ExecSpec, RunSpec
from oa_runlog.proof.keys import ReceiptKey
from oa_runlog.proof.receipt import SignedReceipt
from openagents.control.v1 import service_account_service_pb2, session_service_pb2, sync_token_service_pb2
from openagents.projection.v1 import read_service_pb2
from openagents.runtime.v1 import receipt_service_pb2, replay_service_pb2, run_pb2, run_service_pb2

_RUNS = "openagents.runtime.v1.RunService"
_RECEIPTS = "openagents.runtime.v1.ReceiptService"
_REPLAYS = "openagents.runtime.v1.ReplayService"
_READS = "openagents.projection.v1.ReadService"
_SYNC = "openagents.control.v1.SyncTokenService"
_SESSIONS = "openagents.control.v1.SessionService"
_ACCOUNTS = "openagents.control.v1.ServiceAccountService"


class Commands:
    """Commands and reads of one signed-in principal. Calls that may safely take effect twice are retried for a moment
    when a service is unavailable. Creating a run is one of them, because of its idempotency key."""

    def __init__(self, edge: Edge, tokens: AccessTokens) -> None:
        self._edge = edge
        self._tokens = tokens
        self.talk = Talk(edge, tokens)
        """The conversation of people and runs."""
        self.schedules = Schedules(edge, tokens)
        """Runs that start by the clock."""
        self.account = Account(edge, tokens)
        """The end of the caller's account."""
        self.orgs = Orgs(edge, tokens)
        """Orgs, their members and invitations."""
        self.audit = Audit(edge, tokens)
        """The audit log: who did what in the org."""
        self.keys = OwnKeys(edge, tokens)
        """API keys of service accounts, and the caller's own."""

    async def _call(self, method: str, request: Message, response: type[M]) -> M:
        return await self._edge.call(method, request, response, self._tokens, attempts=ATTEMPTS)

    # ---------------------------------------------------------------------------------------------------------- runs

    async def start_exec(
        self,
        argv: Sequence[str],
        *,
        title: str = "",
        working_directory: str = "",
        retention_class: str = "",
        idempotency_key: str = "",
    ) -> Run:
        """Create a run of a command. The key makes a repeated call safe; without one a new key is made.

        Raises Refusal `invalid_value` for a retention class that the installation does not have; "" is its default.
        """
        command = ExecSpec(tuple(argv), working_directory)
        spec = RunSpec("exec", command, title, retention_class=retention_class)
        return await self.create_run(spec, idempotency_key)

    async def create_run(self, spec: RunSpec, idempotency_key: str = "") -> Run:
        """Create a run. The key makes a repeated call safe; without one a new key is made.

        Raises Refusal with the field of the spec that is to blame; `idempotency_conflict` for a key that was sent with
        another spec.
        """
        request = run_service_pb2.CreateRunRequest(
            idempotency_key=idempotency_key or new_idempotency_key(), spec=runlog_wire.spec_to_wire(spec)
        )
        answer = await self._call(f"{_RUNS}/CreateRun", request, run_service_pb2.CreateRunResponse)
        return wire.run(answer.run)

    async def run(self, run_id: str) -> Run:
        """The authority's current state of a run."""
        request = run_service_pb2.GetRunRequest(run_id=run_id)
        answer = await self._call(f"{_RUNS}/GetRun", request, run_service_pb2.GetRunResponse)
        return wire.run(answer.run)

    async def cancel(self, run_id: str, reason: str = "") -> Run:
        """Ask for a run to end."""
        request = run_service_pb2.CancelRunRequest(run_id=run_id, reason=reason)
        answer = await self._call(f"{_RUNS}/CancelRun", request, run_service_pb2.CancelRunResponse)
        return wire.run(answer.run)

    async def runs(
        self, *, page_size: int = 0, page_token: str = "", status: str = "", own: bool = False, prefix: str = ""
    ) -> Page:
        """Return the runs of the caller's org, newest first, as far as the read model has come.

        `own`: only those that the caller started. `prefix`: only those whose id begins with it.
        """
        request = read_service_pb2.ListRunSummariesRequest(
            page_size=page_size,
            page_token=page_token,
            status=wire.status_number(status) if status else run_pb2.RUN_STATUS_UNSPECIFIED,
            runs=read_service_pb2.LISTED_RUNS_OWN if own else read_service_pb2.LISTED_RUNS_ORG,
            run_id_prefix=prefix,
        )
        answer = await self._call(f"{_READS}/ListRunSummaries", request, read_service_pb2.ListRunSummariesResponse)
        return Page(tuple(wire.summary(each) for each in answer.summaries), answer.next_page_token)

    # ------------------------------------------------------------------------------------------------------ receipts

    async def receipt(self, run_id: str) -> SignedReceipt:
        """The receipt of a run. Raises Refusal `run_not_finished` while it has none."""
        request = receipt_service_pb2.GetReceiptRequest(run_id=run_id)
        answer = await self._call(f"{_RECEIPTS}/GetReceipt", request, receipt_service_pb2.GetReceiptResponse)
        return runlog_wire.receipt_from_wire(answer.receipt)

    async def receipt_keys(self) -> list[ReceiptKey]:
        """Return all keys that receipts are or were signed with, as the site shows them."""
        request = receipt_service_pb2.ListReceiptKeysRequest()
        answer = await self._call(f"{_RECEIPTS}/ListReceiptKeys", request, receipt_service_pb2.ListReceiptKeysResponse)
        return [runlog_wire.receipt_key_from_wire(key) for key in answer.keys]

    async def inclusion_proof(self, run_id: str) -> InclusionProof:
        """The proof that a run's receipt is in the log of receipts. Raises Refusal `not_logged_yet`."""
        request = receipt_service_pb2.GetInclusionProofRequest(run_id=run_id)
        response = receipt_service_pb2.GetInclusionProofResponse
        answer = await self._call(f"{_RECEIPTS}/GetInclusionProof", request, response)
        return InclusionProof(answer.leaf_index, tuple(answer.hashes), answer.checkpoint)

    async def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        """The proof that the log of receipts only grew from one size to the other."""
        request = receipt_service_pb2.GetConsistencyProofRequest(old_size=old_size, new_size=new_size)
        response = receipt_service_pb2.GetConsistencyProofResponse
        answer = await self._call(f"{_RECEIPTS}/GetConsistencyProof", request, response)
        return list(answer.hashes)

    async def artifact_piece(self, run_id: str, offset: int) -> ArtifactPiece:
        """The piece of a run's replay artifact that begins at `offset`; without bytes at the artifact's end."""
        request = replay_service_pb2.ReadReplayArtifactRequest(run_id=run_id, offset=offset)
        response = replay_service_pb2.ReadReplayArtifactResponse
        answer = await self._call(f"{_REPLAYS}/ReadReplayArtifact", request, response)
        return ArtifactPiece(answer.data, answer.total_bytes, answer.sha256)

    # ------------------------------------------------------------------------------------------------------- account

    async def caller(self) -> Caller:
        """Return the caller as the edge identifies it."""
        request = session_service_pb2.GetCallerRequest()
        answer = await self._call(f"{_SESSIONS}/GetCaller", request, session_service_pb2.GetCallerResponse)
        return wire.caller(answer)

    async def revoke_session(self, session_id: str = "") -> None:
        """End a session; an empty id means our own."""
        request = session_service_pb2.RevokeSessionRequest(session_id=session_id)
        response = session_service_pb2.RevokeSessionResponse
        try:
            await self._call(f"{_SESSIONS}/RevokeSession", request, response)
        except Refusal as refusal:
            # Our own has ended, if only by an attempt whose answer was lost.
            if session_id or refusal.reason != "token_revoked":
                raise

    async def sessions(self) -> tuple[Session, ...]:
        """Return our sessions, newest first, including revoked ones for a while."""
        request = session_service_pb2.ListSessionsRequest()
        answer = await self._call(f"{_SESSIONS}/ListSessions", request, session_service_pb2.ListSessionsResponse)
        return tuple(map(wire.session, answer.sessions))

    async def revoke_sessions(self, device_id: str = "", *, keep_current: bool = False) -> tuple[str, ...]:
        """End all our sessions, or those of a device, and return the ids of those that were active until now."""
        # The answer to a repeated attempt lacks the sessions that an earlier one has ended, whose answer was lost.
        active = [
            one
            for one in await self.sessions()
            if not one.revoked_at and device_id in ("", one.device_id) and not (keep_current and one.current)
        ]
        named = [one.session_id for one in active]
        request = session_service_pb2.RevokeSessionsRequest(device_id=device_id, keep_current=keep_current)
        response = session_service_pb2.RevokeSessionsResponse
        try:
            answer = await self._call(f"{_SESSIONS}/RevokeSessions", request, response)
        except Refusal as refusal:
            # All of them have ended, if ours has that was to end with them.
            if refusal.reason == "token_revoked" and any(one.current for one in active):
                return tuple(named)
            raise
        return tuple(dict.fromkeys((*named, *answer.session_ids)))

    async def create_service_account(
        self, name: str, *, scopes: Sequence[str] = (), ttl_s: int = 0
    ) -> NewServiceAccount:
        """Create a service account with an API key: with all scopes if none are named, and no end if `ttl_s` is 0."""
        request = service_account_service_pb2.CreateServiceAccountRequest(name=name, scopes=scopes, ttl_seconds=ttl_s)
        response = service_account_service_pb2.CreateServiceAccountResponse
        answer = await self._edge.call(f"{_ACCOUNTS}/CreateServiceAccount", request, response, self._tokens)
        return wire.new_service_account(answer)

    async def service_accounts(self) -> tuple[ServiceAccount, ...]:
        """Return the org's service accounts, newest first."""
        request = service_account_service_pb2.ListServiceAccountsRequest()
        response = service_account_service_pb2.ListServiceAccountsResponse
        answer = await self._call(f"{_ACCOUNTS}/ListServiceAccounts", request, response)
        return tuple(map(wire.service_account, answer.service_accounts))

    async def revoke_service_account(self, service_account_id: str) -> None:
        """End a service account and its keys. Ending one that has ended changes nothing."""
        request = service_account_service_pb2.RevokeServiceAccountRequest(service_account_id=service_account_id)
        response = service_account_service_pb2.RevokeServiceAccountResponse
        await self._call(f"{_ACCOUNTS}/RevokeServiceAccount", request, response)

    async def sync_token(self, topics: Sequence[str], *, surface: str, ttl_seconds: int = 0) -> SyncGrant:
        """A token for Khala with those of `topics` that are granted."""
        request = sync_token_service_pb2.MintSyncTokenRequest(topics=topics, surface=surface, ttl_seconds=ttl_seconds)
        answer = await self._call(f"{_SYNC}/MintSyncToken", request, sync_token_service_pb2.MintSyncTokenResponse)
        return wire.sync_grant(answer, round(self._edge.now_at_edge() * 1000))
