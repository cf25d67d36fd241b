"""Settings of the control service. Those of the edge are in `edge_config`, those of identity providers in
`provider_config`. `ControlSettings` contains all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from email.headerregistry import Address as MailAddress
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from oa_base.rate import Rate
from oa_platform.auth.keys import public_keys_of_pem, unusable_key, weak_key
from oa_platform.config.handshakes import HandshakeSettings
from oa_platform.config.loading import DefaultFrom, Problem, group, peer_port, setting
from oa_platform.config.parsers import (
    Parser,
    Secret,
    Target,
    address,
    choice,
    integer,
    number,
    path,
    secret_text,
    target,
    text,
)
from oa_platform.config.ports import default_port
from oa_platform.config.production import weak
from oa_platform.config.shared import (
    DatabaseSettings,
    EdgeTlsSettings,
    GrpcClientSettings,
    ProxySettings,
    QuarantineSettings,
    ServiceSettings,
    doc_of_target,
)
from services.control.api_keys.limits import KeyLimits
from services.control.audit_log.limits import AuditLogLimits
from services.control.edge_config import CallRateSettings, EdgeSettings, WebSettings
from services.control.housekeeping.limits import Retention
from services.control.mail.domain.address import sender_address
from services.control.provider_config import ProviderSettings, domains
from services.control.sessions.domain import REVOKED_SHOWN_FOR
from services.control.sign_in.domain.sign_up import SignUp, SignUpRule
from services.control.sign_in.limits import SignInLimits
from services.control.signing_keys.limits import SigningKeyLimits

MIN_HMAC_KEY_CHARS = 32
_OWN_MACHINE = frozenset({"127.0.0.1", "::1", "localhost"})


def websocket_url() -> Parser[str]:
    """A ws(s) URL."""

    def parse(given: str) -> str:
        parts = urlsplit(given)
        if parts.scheme not in ("ws", "wss") or not parts.hostname or parts.username or parts.query:
            raise ValueError
        return given

    return Parser(parse, "a URL like ws://127.0.0.1:8090/khala/v1/ws")


def worker_endpoint() -> Parser[str]:
    """Where workers attach: an address, prefixed with grpcs:// if that port has a certificate."""

    def parse(given: str) -> str:
        address().parse(given.removeprefix("grpcs://"))
        return given

    return Parser(parse, "an address like 127.0.0.1:9081, or grpcs://runtime.example.org:9443 for one with TLS")


def sender() -> Parser[MailAddress]:
    """An address that mail comes from, with or without a name."""
    return Parser(sender_address, "an address like sign-in@example.org or Example <sign-in@example.org>")


@dataclass(frozen=True, kw_only=True)
class OrgSettings:
    """Orgs of several people."""

    delete_grace_days: int = setting(
        "OA_ORG_DELETE_GRACE_DAYS",
        integer(1, 3650),
        30,
        doc="Number of days during which a deleted org can be restored. After that it is gone.",
    )

    @property
    def delete_grace(self) -> timedelta:
        """How long a deleted org can be restored."""
        return timedelta(days=self.delete_grace_days)


@dataclass(frozen=True, kw_only=True)
class SignInSettings:
    """How often sign-in codes may be asked for and tried."""

    address_burst: int = setting(
        "OA_SIGN_IN_ADDRESS_BURST",
        integer(1, 10_000),
        20,
        doc="Maximum burst of codes to one address, without a sign-in in between, for devices on which the "
        "address has never signed in.",
    )
    address_period_s: float = setting(
        "OA_SIGN_IN_ADDRESS_PERIOD_S",
        number(0.001, 86_400),
        180.0,
        doc="Time after which an address may get one more code beyond OA_SIGN_IN_ADDRESS_BURST.",
    )
    address_network_burst: int = setting(
        "OA_SIGN_IN_ADDRESS_NETWORK_BURST",
        integer(1, 10_000),
        3,
        doc="Maximum burst of codes for one address that one network may request. The address's own burst and "
        "period divided by these values give the number of hostile networks that still leave room for its "
        "owner.",
    )
    address_network_period_s: float = setting(
        "OA_SIGN_IN_ADDRESS_NETWORK_PERIOD_S",
        number(0.001, 86_400),
        1200.0,
        doc="Time after which a network may request one more code for an address.",
    )
    device_burst: int = setting(
        "OA_SIGN_IN_DEVICE_BURST",
        integer(1, 10_000),
        5,
        doc="Maximum burst of codes for a device on which the address has signed in before. They count separately "
        "from all others.",
    )
    device_period_s: float = setting(
        "OA_SIGN_IN_DEVICE_PERIOD_S",
        number(0.001, 86_400),
        120.0,
        doc="Time after which a device may get one more code beyond OA_SIGN_IN_DEVICE_BURST.",
    )
    network_burst: int = setting(
        "OA_SIGN_IN_NETWORK_BURST",
        integer(1, 1_000_000),
        60,
        doc="Maximum burst of codes that one network may request.",
    )
    network_period_s: float = setting(
        "OA_SIGN_IN_NETWORK_PERIOD_S",
        number(0.001, 86_400),
        10.0,
        doc="Time after which a network may request one more code beyond OA_SIGN_IN_NETWORK_BURST.",
    )
    guess_burst: int = setting(
        "OA_SIGN_IN_GUESS_BURST",
        integer(1, 1_000_000),
        100,
        doc="Maximum burst of guesses that one network may make at challenges of other devices.",
    )
    guess_period_s: float = setting(
        "OA_SIGN_IN_GUESS_PERIOD_S",
        number(0.001, 86_400),
        6.0,
        doc="Time after which a network may make one more guess beyond OA_SIGN_IN_GUESS_BURST.",
    )

    sign_up: str = setting(
        "OA_SIGN_UP",
        choice(*SignUp),
        SignUp.OPEN.value,
        doc="Who gets an account at the first sign-in: everybody, addresses of OA_SIGN_UP_DOMAINS, or only "
        "invited people. People who already have an account can always sign in.",
    )
    sign_up_domains: frozenset[str] = setting(
        "OA_SIGN_UP_DOMAINS",
        domains(),
        DefaultFrom(lambda _service, _env: frozenset(), "none"),
        doc="Domains whose addresses may sign up if OA_SIGN_UP is domains. A subdomain is a different domain.",
    )

    max_age_s: float = setting(
        "OA_SIGN_IN_MAX_AGE_S",
        number(0, 180 * 86_400),
        7200.0,
        doc="Maximum age of the sign-in for calls that would give the thief of a token lasting power: making "
        "keys, inviting people, changing roles, deleting an org. 0: no limit but the session's lifetime.",
    )

    def max_age(self) -> timedelta | None:
        """The maximum age of a sign-in; None for any age."""
        return timedelta(seconds=self.max_age_s) if self.max_age_s else None

    def problems(self) -> Iterator[Problem]:
        """Report a rule that lets nobody in."""
        if self.sign_up == SignUp.DOMAINS and not self.sign_up_domains:
            name = "OA_SIGN_UP_DOMAINS"
            yield name, f"OA_SIGN_UP is domains, and {name} has none; set it to those of your addresses"

    def rule(self) -> SignUpRule:
        """The rule in the form that sign-in takes."""
        return SignUpRule(SignUp(self.sign_up), self.sign_up_domains)

    def limits(self) -> SignInLimits:
        """The limits in the form that sign-in takes."""
        return SignInLimits(
            per_address=Rate.every(timedelta(seconds=self.address_period_s), self.address_burst),
            per_address_and_network=Rate.every(
                timedelta(seconds=self.address_network_period_s), self.address_network_burst
            ),
            per_known_device=Rate.every(timedelta(seconds=self.device_period_s), self.device_burst),
            per_network=Rate.every(timedelta(seconds=self.network_period_s), self.network_burst),
            guesses_per_network=Rate.every(timedelta(seconds=self.guess_period_s), self.guess_burst),
        )


@dataclass(frozen=True, kw_only=True)
class ApiKeySettings:
    """API keys."""

    max_live: int = setting(
        "OA_API_KEYS_OF_ONE",
        integer(2, 1000),
        20,
        doc="Maximum number of active API keys of one person or service account.",
    )
    max_days_of_person: int = setting(
        "OA_PERSONAL_TOKEN_MAX_DAYS",
        integer(1, 3650),
        90,
        doc="Maximum lifetime of a personal access token, in days.",
    )

    def limits(self) -> KeyLimits:
        """The limits in the form that API keys take."""
        return KeyLimits(self.max_live, timedelta(days=self.max_days_of_person))


@dataclass(frozen=True, kw_only=True)
class MailSettings:
    """How sign-in codes get to people."""

    provider: str = setting(
        "OA_CODE_PROVIDER",
        choice("console", "smtp"),
        "console",
        doc="How sign-in codes are sent. console writes them to the log, for development.",
    )
    dev_file: Path | None = setting(
        "OA_DEV_MAIL_FILE",
        path(),
        None,
        doc="File to which console also writes each code, as a line of JSON. Its mode is 0600.",
    )
    smtp_host: str = setting("OA_SMTP_HOST", text(255), "", doc="Host of the mail relay. Required for smtp.")
    smtp_port: int = setting("OA_SMTP_PORT", integer(1, 65535), 587, doc="Port of the mail relay.")
    smtp_tls: str = setting(
        "OA_SMTP_TLS",
        choice("starttls", "implicit", "none"),
        "starttls",
        doc="How the connection to the relay is protected.",
    )
    smtp_user: str = setting("OA_SMTP_USER", text(255), "", doc="User name for the relay. Empty: no authentication.")
    smtp_password: Secret = setting("OA_SMTP_PASSWORD", secret_text(), Secret(""), doc="Password for the relay.")
    smtp_sender: MailAddress | None = setting(
        "OA_SMTP_SENDER", sender(), None, doc="Sender address of the codes. Required for smtp."
    )
    smtp_timeout_s: float = setting(
        "OA_SMTP_TIMEOUT_S", number(0.1, 120), 10.0, doc="Maximum time for a delivery to the relay."
    )

    def problems(self) -> Iterator[Problem]:
        """Report a relay that is not named."""
        if self.provider == "smtp":
            for name, value in (("OA_SMTP_HOST", self.smtp_host), ("OA_SMTP_SENDER", self.smtp_sender)):
                if not value:
                    yield name, f"OA_CODE_PROVIDER=smtp needs {name}; set it"

    def production_problems(self) -> Iterator[Problem]:
        """Report settings that let people other than their owners read codes."""
        if self.provider == "console":
            text = "OA_CODE_PROVIDER is console, which writes sign-in codes to the log; set it to smtp"
            yield "OA_CODE_PROVIDER", text
        if self.provider == "smtp" and self.smtp_tls == "none" and self.smtp_host not in _OWN_MACHINE:
            problem = "OA_SMTP_TLS is none, which lets others read sign-in codes; set it to starttls or implicit"
            yield "OA_SMTP_TLS", problem
        if self.dev_file is not None:
            yield "OA_DEV_MAIL_FILE", "OA_DEV_MAIL_FILE keeps sign-in codes in a file; unset it"


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """How long the audit log is kept."""

    retention_days: int = setting(
        "OA_AUDIT_RETENTION_DAYS",
        integer(30, 36_500),
        400,
        doc="Age in days at which audit events are deleted. The hash chain of the remaining events stays verifiable.",
    )

    @property
    def kept_for(self) -> timedelta:
        """How long audit events are kept."""
        return timedelta(days=self.retention_days)

    def limits(self, quarantine: QuarantineSettings) -> AuditLogLimits:
        """The limits in the form that the audit log takes."""
        return AuditLogLimits(kept_for=self.kept_for, quarantine=quarantine)


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """How long ended sessions, API keys and service accounts are kept."""

    retention_days: int = setting(
        "OA_SESSION_RETENTION_DAYS",
        integer(REVOKED_SHOWN_FOR.days, 36_500),
        Retention().ended.days,
        doc="Number of days after which a session, API key or service account that has ended is removed, and those of "
        "an org that is gone. A session or key that an operator ended is kept for at least OA_AUDIT_RETENTION_DAYS.",
    )

    def retention(self, audited: timedelta) -> Retention:
        """The retention in the form that the features take. `audited`: how long audit events are kept."""
        return Retention(timedelta(days=self.retention_days), audited)


@dataclass(frozen=True, kw_only=True)
class KeySettings:
    """Keys. All replicas have the same keys."""

    signing_key: Secret = setting(
        "OA_SIGNING_KEY",
        secret_text("an Ed25519 private key, PKCS #8 in PEM"),
        doc="Key that signs every token until `oa admin keys rotate` creates another one.",
    )
    hmac_key: Secret = setting(
        "OA_HMAC_KEY",
        secret_text(f"a random text of at least {MIN_HMAC_KEY_CHARS} characters"),
        doc="Key that hashes codes and API keys, derives refresh tokens, and encrypts the signing keys in the "
        "database. Changing it ends every session and API key and requires a new OA_SIGNING_KEY.",
    )
    published_keys_file: Path | None = setting(
        "OA_PUBLISHED_KEYS_FILE", path(), None, doc="File of further public keys (PEM) that are published and accepted."
    )
    published_s: float = setting(
        "OA_SIGNING_KEY_PUBLISHED_S",
        number(1, 86_400),
        600.0,
        doc="How long a new signing key is published before it signs. It must exceed OA_JWKS_REFRESH_S of every "
        "service.",
    )

    def limits(self) -> SigningKeyLimits:
        """The limits in the form that signing keys take."""
        return SigningKeyLimits(published_for=timedelta(seconds=self.published_s))

    def problems(self) -> Iterator[Problem]:
        """Report keys that can't be used, none of which is shown."""
        yield from unusable_key("OA_SIGNING_KEY", self.signing_key.reveal())
        if len(self.hmac_key.reveal()) < MIN_HMAC_KEY_CHARS:
            yield "OA_HMAC_KEY", f"OA_HMAC_KEY is too short; give it at least {MIN_HMAC_KEY_CHARS} characters"
        try:
            self.published_keys()
        except (OSError, ValueError) as error:
            problem = error if isinstance(error, ValueError) else "no file"
            name = "OA_PUBLISHED_KEYS_FILE"
            yield name, f"{name} can't be used: {problem}; give it public keys in PEM form"

    def production_problems(self) -> Iterator[Problem]:
        """Report keys that could be guessed."""
        yield from weak_key("OA_SIGNING_KEY", self.signing_key.reveal())
        yield from weak("OA_HMAC_KEY", self.hmac_key.reveal())

    def published_keys(self) -> Sequence[Ed25519PublicKey]:
        """The further public keys. Raises OSError, ValueError for a file that has none."""
        file = self.published_keys_file
        return public_keys_of_pem(file.read_text("utf-8")) if file else ()

    def hmac_bytes(self) -> bytes:
        """The key for MACs."""
        return self.hmac_key.reveal().encode()


@dataclass(frozen=True, kw_only=True)
class PeerSettings:
    """The other services: where control calls them, and where clients find them."""

    runtime: Target = setting("OA_RUNTIME_GRPC", target(), peer_port("runtime_grpc"), doc=doc_of_target("runtime"))
    projector: Target = setting(
        "OA_PROJECTOR_GRPC", target(), peer_port("projector_grpc"), doc=doc_of_target("projector")
    )
    khala_url: str = setting(
        "OA_KHALA_URL",
        websocket_url(),
        DefaultFrom(
            lambda _, env: f"ws://127.0.0.1:{default_port('khala_ws', env)}/khala/v1/ws",
            "ws://127.0.0.1, OA_PORT_BASE + 10, /khala/v1/ws",
        ),
        doc="URL at which clients open the WebSocket.",
    )
    runtime_public: str | None = setting(
        "OA_RUNTIME_PUBLIC_GRPC",
        worker_endpoint(),
        None,
        doc="Address at which workers attach; their tokens carry it. Defaults to OA_RUNTIME_GRPC.",
    )

    @property
    def worker_address(self) -> str:
        """Where workers attach."""
        return self.runtime_public or str(self.runtime.addresses[0])

    def problems(self) -> Iterator[Problem]:
        """Report several addresses, because a worker can be given only one."""
        if self.runtime_public is None and len(self.runtime.addresses) > 1:
            name = "OA_RUNTIME_PUBLIC_GRPC"
            yield name, f"OA_RUNTIME_GRPC has several addresses; set {name} to the one where workers attach"


@dataclass(frozen=True, kw_only=True)
class ControlSettings(ServiceSettings):
    """All of control's settings."""

    service: ClassVar[str] = "control"
    edge: EdgeSettings = group(EdgeSettings)
    calls: CallRateSettings = group(CallRateSettings)
    edge_tls: EdgeTlsSettings = group(EdgeTlsSettings)
    handshakes: HandshakeSettings = group(HandshakeSettings)
    proxies: ProxySettings = group(ProxySettings)
    sign_in: SignInSettings = group(SignInSettings)
    orgs: OrgSettings = group(OrgSettings)
    api_keys: ApiKeySettings = group(ApiKeySettings)
    mail: MailSettings = group(MailSettings)
    audit: AuditSettings = group(AuditSettings)
    sessions: SessionSettings = group(SessionSettings)
    quarantine: QuarantineSettings = group(QuarantineSettings)
    keys: KeySettings = group(KeySettings)
    peers: PeerSettings = group(PeerSettings)
    web: WebSettings = group(WebSettings)
    providers: ProviderSettings = group(ProviderSettings)
    client: GrpcClientSettings = group(GrpcClientSettings)
    database: DatabaseSettings = group(DatabaseSettings)

    def problems(self) -> Iterator[Problem]:
        """Report, beside what no service takes, an edge that anybody could listen in on."""
        yield from super().problems()
        certificate, needed = self.edge_tls.cert_file, "OA_EDGE_TLS_CERT_FILE"
        yield from self.tls.open_listener(self.edge.address, "OA_HTTP_ADDRESS", certificate, needed)
