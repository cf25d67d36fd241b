"""Builds control's objects from its settings: the only place that knows all features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from starlette.types import ASGIApp

from oa_base.clock import Clock
from oa_base.identity import PrincipalKind
from oa_platform.auth.authenticator import Authenticator
from oa_platform.auth.keys import generate_key, load_key
from oa_platform.auth.tokens import TokenVerifier
from oa_platform.config.shared import ClockSettings
from oa_platform.health.clock_watch import ClockWatch
from oa_platform.http.server import HttpServer
from oa_platform.http.tls_listener import HandshakeLimits
from oa_platform.postgres.at_start import check_schema
from oa_platform.postgres.pool import Connection, Postgres
from oa_platform.process.lifecycle import Process
from oa_platform.rpc.client import open_channel
from oa_platform.rpc.server import GrpcServer
from oa_platform.tls.protection import Protection, edge_protection
from openagents.control.v1.block_service_pb2_grpc import add_BlockServiceServicer_to_server
from openagents.control.v1.installation_account_service_pb2_grpc import (
    add_InstallationAccountServiceServicer_to_server,
)
from openagents.control.v1.installation_audit_service_pb2_grpc import (
    add_InstallationAuditServiceServicer_to_server,
)
from openagents.control.v1.installation_org_service_pb2_grpc import add_InstallationOrgServiceServicer_to_server
from openagents.control.v1.installation_session_service_pb2_grpc import (
    add_InstallationSessionServiceServicer_to_server,
)
from openagents.control.v1.policy_service_pb2_grpc import add_PolicyServiceServicer_to_server
from openagents.control.v1.revocation_service_pb2_grpc import add_RevocationServiceServicer_to_server
from openagents.control.v1.route_service_pb2_grpc import add_RouteServiceServicer_to_server
from openagents.control.v1.signing_key_service_pb2_grpc import add_SigningKeyServiceServicer_to_server
from services.control.accounts.app import Accounts
from services.control.accounts.door import AccountApi, InstallationAccountApi
from services.control.accounts.store import PostgresAccounts
from services.control.api_keys.app.keys import ApiKeys
from services.control.api_keys.domain import is_api_key_id
from services.control.api_keys.door import ApiKeyApi
from services.control.api_keys.limits import KeyLimits
from services.control.api_keys.store import PostgresApiKeys
from services.control.audit.app import RefusedCredentials
from services.control.audit.store import PostgresAuditTrail
from services.control.audit_log.app.log import AuditLog
from services.control.audit_log.app.sealer import Sealer
from services.control.audit_log.door.api import AuditApi
from services.control.audit_log.door.operators import InstallationAuditApi
from services.control.audit_log.limits import AuditLogLimits
from services.control.audit_log.store import PostgresAuditLog, PostgresSeals
from services.control.blocks.app import Blocks
from services.control.blocks.door import BlockApi
from services.control.blocks.store import PostgresBlocks
from services.control.calls.app import Handlers
from services.control.calls.door import register_all
from services.control.config import ControlSettings, KeySettings, MailSettings
from services.control.edge.door.edge import Edge
from services.control.edge.door.methods import open_methods
from services.control.edge.door.protocol import Connections, limited_protocol
from services.control.edge.door.routes import edge_app
from services.control.edge_config import WebSettings
from services.control.housekeeping.app import keep_sweeping
from services.control.housekeeping.limits import Retention
from services.control.installation.app import InstallationOrgs, InstallationSessions
from services.control.installation.door import InstallationOrgApi, InstallationSessionApi
from services.control.installation.store import PostgresInstallationOrgs
from services.control.invitations.app import Invitations
from services.control.invitations.door import InvitationApi
from services.control.invitations.store import PostgresInvitations
from services.control.mail.app import Carrier, Delivery
from services.control.mail.domain.letters import Kind, Letter, Mail
from services.control.mail.door import ConsoleCarrier, SmtpCarrier, SmtpRelay
from services.control.mail.store import PostgresMail
from services.control.members.app import Members
from services.control.members.door import MemberApi
from services.control.members.store import PostgresMembers
from services.control.notices import domain as notices
from services.control.orgs.app import Orgs
from services.control.orgs.door import OrgApi
from services.control.orgs.store import PostgresOrgs, PostgresPeople
from services.control.policy.app import AccessTokenVerifier, AskStanding, Gate
from services.control.policy.domain import Standing, StandingPrincipal
from services.control.policy.door import PolicyApi
from services.control.provider_config import ProviderSettings
from services.control.provider_sign_in.app import Provider, ProviderSignIn
from services.control.provider_sign_in.domain import ProviderRule
from services.control.provider_sign_in.door.api import ProviderSignInApi
from services.control.provider_sign_in.store import PostgresIdentities, PostgresProviderSignIns
from services.control.revocations import store as revocations_store
from services.control.revocations.app import RevocationFeed
from services.control.revocations.door import RevocationApi
from services.control.revocations.limits import RevocationLimits, max_clock_lead
from services.control.routes import store as routes_store
from services.control.routes.app.book import RouteBook
from services.control.routes.app.canaries import Canaries
from services.control.routes.app.operators import Operators
from services.control.routes.domain.groups import Side
from services.control.routes.door.api import RouteApi
from services.control.routes.door.front import Front
from services.control.routes.door.legacy import Legacy
from services.control.routes.door.maintenance import MaintenanceDoor
from services.control.routes.limits import RouteLimits
from services.control.service_accounts.app import ServiceAccounts
from services.control.service_accounts.door import ServiceAccountApi
from services.control.service_accounts.store import PostgresServiceAccounts
from services.control.sessions.app import Sessions
from services.control.sessions.door import SessionApi
from services.control.sessions.store import PostgresSessions
from services.control.sign_in.app import SignIn
from services.control.sign_in.domain.sign_up import SignUpRule
from services.control.sign_in.door import AuthApi
from services.control.sign_in.limits import SignInLimits
from services.control.sign_in.store import PostgresChallenges, PostgresRates
from services.control.signing_keys.app import SigningKeys
from services.control.signing_keys.door import SealedKeys, SigningKeyApi
from services.control.signing_keys.store import PostgresSigningKeys
from services.control.sync_tokens.app import RunOwnership, SyncTokens
from services.control.sync_tokens.door import RuntimeOwnership, SyncTokenApi
from services.control.sync_tokens.store import PostgresMints
from services.control.tokens.app import TokenIssuer, TokenSigner
from services.control.tokens.door import CurrentSigner, JwtVerifier, KeyRing
from services.control.transactions.app import Transactions
from services.control.transactions.store import PostgresTransactions
from services.control.upstreams.door import GrpcUpstreams
from services.control.web.app import Releases
from services.control.web.door import WebShell

MIGRATIONS = Path(__file__).parent / "migrations"
REVOCATION_LIMITS = RevocationLimits()
AUDIT_LOG_LIMITS = AuditLogLimits()
ROUTE_LIMITS = RouteLimits()


class Tables:
    """Every feature's tables on one connection: a superset of what each feature's `Transaction` asks for."""

    def __init__(self, connection: Connection, max_clock_lead: timedelta) -> None:
        self.accounts = PostgresAccounts(connection)
        self.api_keys = PostgresApiKeys(connection)
        self.audit = PostgresAuditTrail(connection)
        self.audit_log = PostgresAuditLog(connection)
        self.blocks = PostgresBlocks(connection)
        self.challenges = PostgresChallenges(connection)
        self.identities = PostgresIdentities(connection)
        self.installation_orgs = PostgresInstallationOrgs(connection)
        self.invitations = PostgresInvitations(connection)
        self.mail = PostgresMail(connection)
        self.members = PostgresMembers(connection)
        self.mints = PostgresMints(connection)
        self.orgs = PostgresOrgs(connection)
        self.people = PostgresPeople(connection)
        self.provider_sign_ins = PostgresProviderSignIns(connection)
        self.rates = PostgresRates(connection)
        self.revocations = revocations_store.PostgresRevocations(connection, max_clock_lead)
        self.seals = PostgresSeals(connection)
        self.routes = routes_store.PostgresRoutes(connection)
        self.service_accounts = PostgresServiceAccounts(connection)
        self.sessions = PostgresSessions(connection)
        self.signing_keys = PostgresSigningKeys(connection)


def transactions_on(postgres: Postgres, clocks: ClockSettings) -> Transactions[Tables]:
    """Transactions in Postgres. `clocks` says how far the clocks of two replicas may differ."""
    lead = max_clock_lead(clocks.leeway_ms)
    return PostgresTransactions(postgres, lambda connection: Tables(connection, lead))


@dataclass(frozen=True, kw_only=True)
class Dependencies:
    """The dependencies of the use cases. `hmac_key` hashes codes and API keys and makes refresh tokens. A deleted org
    can be restored for `delete_grace`. A sign-in older than `max_sign_in_age` is not fresh; None: each is fresh."""

    transactions: Transactions[Tables]
    clock: Clock
    signer: TokenSigner
    verifier: AccessTokenVerifier
    ownership: RunOwnership
    carrier: Carrier
    hmac_key: bytes
    delete_grace: timedelta
    max_sign_in_age: timedelta | None = None
    key_limits: KeyLimits = field(default_factory=KeyLimits)
    sign_up: SignUpRule = field(default_factory=SignUpRule)
    providers: Mapping[str, Provider] = field(default_factory=dict)
    provider_rule: ProviderRule = field(default_factory=ProviderRule)
    retention: Retention = field(default_factory=Retention)


class UseCases:
    """The use cases of all features, and the gate before them."""

    def __init__(
        self, dependencies: Dependencies, limits: SignInLimits, audit_limits: AuditLogLimits = AUDIT_LOG_LIMITS
    ) -> None:
        transactions, clock = dependencies.transactions, dependencies.clock
        hmac_key = dependencies.hmac_key
        issuer = TokenIssuer(dependencies.signer)
        self.refused = RefusedCredentials(transactions, clock)
        self.audit_log = AuditLog(transactions, audit_limits, hmac_key)
        self.sealer = Sealer(transactions, clock, audit_limits)
        self.orgs = Orgs(transactions, clock, dependencies.delete_grace)
        self.members = Members(transactions, clock)
        self.revocations = RevocationFeed(transactions, clock, REVOCATION_LIMITS)
        self.sessions = Sessions(transactions, clock, issuer, hmac_key, dependencies.retention)
        self.api_keys = ApiKeys(transactions, clock, issuer, hmac_key, dependencies.key_limits, dependencies.retention)
        self.service_accounts = ServiceAccounts(transactions, clock, self.api_keys, dependencies.retention)
        self.blocks = Blocks(transactions, clock, self.sessions, self.api_keys)
        self.accounts = Accounts(transactions, clock, dependencies.delete_grace)
        self.installation_sessions = InstallationSessions(transactions, self.sessions)
        self.installation_orgs = InstallationOrgs(transactions, clock)
        self.sync_tokens = SyncTokens(transactions, clock, issuer, self.sessions, self.api_keys, dependencies.ownership)
        writers: dict[Kind, Callable[[Mail], Letter]] = {}
        self.delivery = Delivery(transactions, clock, dependencies.carrier, writers)
        self.invitations = Invitations(transactions, clock, hmac_key, mail_waits=self.delivery.wake)
        self.sign_in = SignIn(
            transactions,
            clock,
            hmac_key,
            self.orgs,
            self.sessions,
            limits,
            mail_waits=self.delivery.wake,
            sign_up=dependencies.sign_up,
            invitations=self.invitations,
            instead=() if dependencies.provider_rule.codes_too else tuple(dependencies.providers),
        )
        self.provider_sign_in = ProviderSignIn(
            transactions,
            clock,
            hmac_key,
            dependencies.providers,
            self.orgs,
            self.sessions,
            limits,
            sign_up=dependencies.sign_up,
            rule=dependencies.provider_rule,
            invitations=self.invitations,
        )
        writers[Kind.SIGN_IN_CODE] = self.sign_in.letter
        writers[Kind.INVITATION] = self.invitations.letter
        writers[Kind.SIGN_IN_REFUSED] = self.sign_in.refusal
        writers[Kind.NEW_DEVICE] = notices.new_device_letter
        writers[Kind.KEY_CREATED] = notices.key_letter
        writers[Kind.ACCOUNT_DELETED] = notices.deletion_letter
        standings = {
            PrincipalKind.USER: _by_key(self.api_keys.standing, self.sessions.standing),
            PrincipalKind.SERVICE_ACCOUNT: _by_key(self.api_keys.standing, self.service_accounts.standing),
        }
        self.sweeps = (
            self.sign_in.sweep,
            self.provider_sign_in.sweep,
            self.revocations.sweep,
            self.invitations.sweep,
            self.orgs.sweep,
            self.sealer.sweep,
            self.api_keys.sweep,
            self.api_keys.sweep_ended,
            self.service_accounts.sweep,
            self.sessions.sweep,
        )
        self.gate = Gate(transactions, clock, dependencies.verifier, standings, dependencies.max_sign_in_age)


def _by_key(of_key: AskStanding, of_others: AskStanding) -> AskStanding:
    """Ask `of_key` about a token that was made from an API key, and `of_others` about any other."""

    async def standing(principal: StandingPrincipal, jti: str) -> Standing | None:
        return await (of_key if is_api_key_id(principal.session_id) else of_others)(principal, jti)

    return standing


async def start(settings: ControlSettings, process: Process) -> None:
    """Build and serve. Upstreams need not be available: functions that don't need them work without them."""
    clock = process.clock
    watch = ClockWatch(settings.service, clock, settings.clock)
    ring = key_ring(settings.keys)
    postgres = await process.enter(Postgres(settings.database, "control"))
    process.readiness.add("postgres", postgres.check)
    watch.compare_with_database(postgres)
    process.readiness.add("clock", watch.check)
    await check_schema(settings.database, "control", MIGRATIONS)
    transactions = transactions_on(postgres, settings.clock)
    keys = await _signing_keys(settings, process, transactions, ring)
    verifier = TokenVerifier(keys, clock, watch)
    signer = CurrentSigner(lambda: keys.signing)
    upstreams = await _upstreams(settings, process, TokenIssuer(signer))
    dependencies = Dependencies(
        transactions=transactions,
        clock=clock,
        signer=signer,
        verifier=JwtVerifier(verifier),
        ownership=RuntimeOwnership(upstreams),
        carrier=carrier(settings.mail),
        hmac_key=settings.keys.hmac_bytes(),
        delete_grace=settings.orgs.delete_grace,
        max_sign_in_age=settings.sign_in.max_age(),
        key_limits=settings.api_keys.limits(),
        sign_up=settings.sign_in.rule(),
        providers=await _providers(settings.providers, process),
        provider_rule=settings.providers.rule(),
        retention=settings.sessions.retention(settings.audit.kept_for),
    )
    cases = UseCases(dependencies, settings.sign_in.limits(), settings.audit.limits(settings.quarantine))
    process.background("mail", cases.delivery.run())
    operators = Operators(
        transactions=dependencies.transactions,
        clock=clock,
        sides=_sides(settings.web),
        hmac_key=dependencies.hmac_key,
    )
    process.background("housekeeping", keep_sweeping(*cases.sweeps, operators.sweep))
    process.background("audit log", cases.sealer.run())
    process.background("uses of keys", cases.api_keys.uses.keep_writing())
    await cases.revocations.start()
    listener = revocations_store.listener(settings.database, cases.revocations, REVOCATION_LIMITS.look_interval_s)
    process.background("revocations", cases.revocations.run())
    process.background("revocations-listener", listener.run())

    handlers = _handlers(settings, cases)
    authenticator = Authenticator(
        "control", settings.identity.accepted_services, verifier, settings.identity.accepted_certificates
    )
    server = GrpcServer(settings.grpc, authenticator, process.protection)
    register_all(server, handlers, cases.gate)
    _register_internal(server, cases, operators, keys)
    await process.enter(server)
    process.background("audit of refusals", cases.refused.keep_writing())
    edge = _edge(settings, handlers, cases, upstreams, clock)
    outside = await process.enter(edge_protection(settings.edge_tls, settings.tls, clock))
    book = await _route_book(settings, process, dependencies)
    web = await _web(settings, process, dependencies, book)
    app = edge_app(
        edge,
        keys.jwks,
        clock,
        settings.edge.allowed_origins,
        settings.edge.max_head_bytes,
        web=web,
        behind=lambda within: MaintenanceDoor(within, book, clock, dependencies.hmac_key),
    )
    await process.enter(_http_server(settings, app, outside))


def _edge(
    settings: ControlSettings, handlers: Handlers, cases: UseCases, upstreams: GrpcUpstreams, clock: Clock
) -> Edge:
    return Edge(
        open_methods(),
        handlers,
        cases.gate,
        upstreams,
        settings.edge.limits(settings.calls.rates()),
        clock,
        cases.refused,
        settings.proxies.trusted,
        settings.edge.clients,
    )


def _register_internal(server: GrpcServer, cases: UseCases, operators: Operators, keys: SigningKeys) -> None:
    """Register the services that only our services and operators call."""
    server.register(add_RevocationServiceServicer_to_server, RevocationApi(cases.revocations))
    server.register(add_BlockServiceServicer_to_server, BlockApi(cases.blocks))
    server.register(add_InstallationAccountServiceServicer_to_server, InstallationAccountApi(cases.accounts))
    server.register(add_InstallationAuditServiceServicer_to_server, InstallationAuditApi(cases.audit_log))
    sessions, orgs = InstallationSessionApi(cases.installation_sessions), InstallationOrgApi(cases.installation_orgs)
    server.register(add_InstallationSessionServiceServicer_to_server, sessions)
    server.register(add_InstallationOrgServiceServicer_to_server, orgs)
    server.register(add_PolicyServiceServicer_to_server, PolicyApi(cases.gate))
    server.register(add_RouteServiceServicer_to_server, RouteApi(operators))
    server.register(add_SigningKeyServiceServicer_to_server, SigningKeyApi(keys))


async def _signing_keys(
    settings: ControlSettings, process: Process, transactions: Transactions[Tables], ring: KeyRing
) -> SigningKeys:
    """Load the current keys, and follow changes from now on."""
    box, limits = SealedKeys(settings.keys.hmac_bytes()), settings.keys.limits()
    keys = SigningKeys(transactions, process.clock, box, ring.signing, ring.public_keys, generate_key, limits)
    await keys.start()
    process.background("signing keys", keys.run())
    return keys


async def _providers(settings: ProviderSettings, process: Process) -> Mapping[str, Provider]:
    """The configured identity providers, in the order in which people see them. Modules that only a provider needs are
    imported only with that provider, because importing them takes long."""
    providers: dict[str, Provider] = {}
    if settings.oidc_issuer:
        from services.control.provider_sign_in.door.oidc import OidcClient, OidcProvider

        client = OidcClient(
            issuer=settings.oidc_issuer,
            label=settings.oidc_label,
            client_id=settings.oidc_client_id,
            secret=settings.oidc_client_secret.reveal(),
            token_auth=settings.oidc_token_auth,
            timeout_s=settings.timeout_s,
        )
        providers["oidc"] = OidcProvider(client, process.clock)
    if settings.workos_client_id:
        from services.control.provider_sign_in.door.workos import WorkOsClient, WorkOsProvider

        account = WorkOsClient(
            label=settings.workos_label,
            url=settings.workos_url,
            client_id=settings.workos_client_id,
            api_key=settings.workos_api_key.reveal(),
            organization=settings.workos_organization,
            timeout_s=settings.timeout_s,
        )
        providers["workos"] = await process.enter(WorkOsProvider(account))
    return providers


def _sides(web: WebSettings) -> frozenset[Side]:
    there = {Side.SHELL: web.root, Side.LEGACY: web.legacy_url}
    return frozenset(side for side, setting in there.items() if setting is not None)


async def _route_book(settings: ControlSettings, process: Process, dependencies: Dependencies) -> RouteBook:
    """Load the operators' decisions on routes, and follow changes from now on."""
    book = RouteBook(dependencies.transactions, dependencies.clock)
    await book.start()
    listener = routes_store.listener(settings.database, book, ROUTE_LIMITS.look_interval_s)
    process.background("routes", book.run())
    process.background("routes-listener", listener.run())
    return book


async def _web(
    settings: ControlSettings, process: Process, dependencies: Dependencies, book: RouteBook
) -> Front | None:
    """The part that answers web requests; None if there is none."""
    web = settings.web
    shell: WebShell | None = None
    if web.root is not None:
        releases = Releases(web.root, web.previous_roots)
        await releases.verify()
        process.readiness.add("web", releases.check)
        khala = urlsplit(settings.peers.khala_url)
        shell = WebShell(releases, f"{khala.scheme}://{khala.netloc}")
    legacy: Legacy | None = None
    if web.legacy_url is not None:
        legacy = await process.enter(Legacy(web.legacy_url, web.legacy_limits(), settings.proxies.trusted))
    if shell is None and legacy is None:
        return None
    canaries = Canaries(dependencies.transactions, dependencies.clock, book, ROUTE_LIMITS.canary_interval_s)
    process.background("canaries", canaries.run())
    return Front(book, canaries, shell, legacy)


async def _upstreams(settings: ControlSettings, process: Process, issuer: TokenIssuer) -> GrpcUpstreams:
    targets = {"runtime": settings.peers.runtime, "projector": settings.peers.projector}
    channels = {
        audience: await process.enter(
            open_channel(target, settings.client, settings.identity.service_token, process.protection)
        )
        for audience, target in targets.items()
    }
    return GrpcUpstreams(channels, issuer, process.clock)


def _handlers(settings: ControlSettings, cases: UseCases) -> Handlers:
    khala_url = settings.peers.khala_url
    runtime = settings.peers.worker_address
    apis = (
        AccountApi(cases.accounts),
        AuditApi(cases.audit_log),
        ApiKeyApi(cases.api_keys),
        AuthApi(cases.sign_in, cases.sessions),
        InvitationApi(cases.invitations),
        MemberApi(cases.members),
        OrgApi(cases.orgs),
        ProviderSignInApi(cases.provider_sign_in),
        ServiceAccountApi(cases.service_accounts, cases.api_keys, runtime),
        SessionApi(cases.sessions, cases.orgs, khala_url),
        SyncTokenApi(cases.sync_tokens, khala_url),
    )
    return {name: handler for api in apis for name, handler in api.handlers().items()}


def _http_server(settings: ControlSettings, app: ASGIApp, protection: Protection) -> HttpServer:
    limits = settings.edge
    connections = Connections(limits.max_connections, limits.max_connections_of_network, settings.proxies.trusted)
    protocol = limited_protocol(
        limits.max_head_bytes, limits.head_timeout_s, limits.body_timeout_s, limits.answer_timeout_s, connections
    )
    return HttpServer(
        app,
        limits.address,
        variable="OA_HTTP_ADDRESS",
        drain_s=limits.drain_s,
        keep_alive_s=limits.keep_alive_s,
        protocol=protocol,
        protection=protection,
        handshakes=HandshakeLimits(
            max_of_network=settings.handshakes.max_of_network,
            deadline_s=limits.head_timeout_s,
            trusted=settings.proxies.trusted,
        ),
    )


def key_ring(keys: KeySettings) -> KeyRing:
    """The keys for tokens."""
    return KeyRing(load_key(keys.signing_key.reveal()), keys.published_keys())


def carrier(mail: MailSettings) -> Carrier:
    """The carrier that sends mail."""
    if mail.provider == "console":
        return ConsoleCarrier(mail.dev_file)
    assert mail.smtp_host
    assert mail.smtp_sender
    relay = SmtpRelay(
        host=mail.smtp_host,
        port=mail.smtp_port,
        sender=mail.smtp_sender,
        tls=mail.smtp_tls,
        user=mail.smtp_user,
        password=mail.smtp_password.reveal(),
        timeout_s=mail.smtp_timeout_s,
    )
    return SmtpCarrier(relay)
