"""Settings of the identity providers that people sign in with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from oa_base.refusal import Refusal
from oa_platform.config.loading import DefaultFrom, Problem, setting
from oa_platform.config.parsers import Parser, Secret, boolean, choice, http_url, number, secret_text, text
from services.control.mail.domain.address import canonical_email
from services.control.provider_sign_in.domain import ProviderRule


def domains() -> Parser[frozenset[str]]:
    """Domains of addresses, separated by commas, in the canonical form of addresses."""

    def parse(given: str) -> frozenset[str]:
        try:
            return frozenset(canonical_email(f"x@{part.strip()}").rpartition("@")[2] for part in given.split(","))
        except Refusal:
            raise ValueError from None

    return Parser(parse, "a list of domains like example.org,example.com")


def issuer() -> Parser[str]:
    """The issuer of an OpenID provider, exactly as the provider writes it."""

    def parse(given: str) -> str:
        parts = urlsplit(given)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ValueError
        return given

    return Parser(parse, "a URL like https://login.example.org/, letter by letter as the provider writes it")


def redirects() -> Parser[frozenset[str]]:
    """Redirect URLs, separated by commas."""

    def parse(given: str) -> frozenset[str]:
        urls = frozenset(part.strip() for part in given.split(","))
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.fragment:
                raise ValueError
        return urls

    return Parser(parse, "a list of URLs like https://app.example.org/signed-in")


@dataclass(frozen=True, kw_only=True)
class ProviderSettings:
    """Identity providers, which people can sign in with besides codes by mail."""

    oidc_issuer: str | None = setting(
        "OA_OIDC_ISSUER",
        issuer(),
        None,
        doc="Issuer of an OpenID Connect provider. With it, people can sign in with this provider.",
    )
    oidc_label: str = setting(
        "OA_OIDC_LABEL", text(64), "Single sign-on", doc="Name under which people know the OpenID Connect provider."
    )
    oidc_client_id: str = setting(
        "OA_OIDC_CLIENT_ID", text(255), "", doc="Id of this installation at the OpenID Connect provider."
    )
    oidc_client_secret: Secret = setting(
        "OA_OIDC_CLIENT_SECRET",
        secret_text("the secret that the provider gave"),
        Secret(""),
        doc="Secret of this installation at the provider. Empty for a public client.",
    )
    oidc_token_auth: str = setting(
        "OA_OIDC_TOKEN_AUTH",
        choice("client_secret_basic", "client_secret_post"),
        "client_secret_basic",
        doc="How the secret is presented to the provider.",
    )
    workos_client_id: str = setting(
        "OA_WORKOS_CLIENT_ID",
        text(255),
        "",
        doc="Id of this installation at WorkOS. With it, people can sign in with WorkOS.",
    )
    workos_api_key: Secret = setting(
        "OA_WORKOS_API_KEY", secret_text("the API key that WorkOS gave"), Secret(""), doc="API key at WorkOS."
    )
    workos_organization: str = setting(
        "OA_WORKOS_ORGANIZATION",
        text(255),
        "",
        doc="Organization at WorkOS whose connection is used. Empty: AuthKit's page, where people choose.",
    )
    workos_label: str = setting("OA_WORKOS_LABEL", text(64), "WorkOS", doc="Name under which people know WorkOS.")
    workos_url: str = setting(
        "OA_WORKOS_URL",
        http_url(),
        "https://api.workos.com",
        doc="URL of the WorkOS API. Accounts are identified by it, so don't change it later.",
    )
    timeout_s: float = setting(
        "OA_PROVIDER_TIMEOUT_S",
        number(0.1, 60),
        10.0,
        doc="Maximum time for the requests of one sign-in to a provider.",
    )
    redirects: frozenset[str] = setting(
        "OA_SIGN_IN_REDIRECTS",
        redirects(),
        DefaultFrom(lambda _service, _env: frozenset(), "none"),
        doc="Redirect URLs of web pages that sign people in with a provider. They must match exactly.",
    )
    loopback: bool = setting(
        "OA_SIGN_IN_LOOPBACK",
        boolean(),
        True,
        doc="Whether `oa login` may receive a provider's answer at http://127.0.0.1:PORT/callback on its own machine.",
    )
    codes_too: bool = setting(
        "OA_SIGN_IN_BY_CODE",
        boolean(),
        True,
        doc="Whether people can also sign in with a code sent by mail. If false, a provider is the only way in.",
    )
    link_domains: frozenset[str] = setting(
        "OA_SIGN_IN_LINK_DOMAINS",
        domains(),
        DefaultFrom(lambda _service, _env: frozenset(), "none"),
        doc="Domains whose addresses the providers may vouch for: a person whose account was opened with a code "
        "reaches the same account through a provider that has verified the address. A subdomain is a "
        "different domain.",
    )

    def problems(self) -> Iterator[Problem]:
        """Report a provider that lacks a setting that it needs."""
        if self.oidc_issuer and not self.oidc_client_id:
            yield "OA_OIDC_CLIENT_ID", "OA_OIDC_ISSUER needs OA_OIDC_CLIENT_ID; set it to the id that the provider gave"
        if not self.codes_too and not (self.oidc_issuer or self.workos_client_id):
            problem = "OA_SIGN_IN_BY_CODE is off and no provider is set, so that nobody could sign in"
            yield "OA_SIGN_IN_BY_CODE", f"{problem}; turn it on, or set OA_OIDC_ISSUER or OA_WORKOS_CLIENT_ID"
        if self.workos_client_id and not self.workos_api_key.reveal():
            yield "OA_WORKOS_API_KEY", "OA_WORKOS_CLIENT_ID needs OA_WORKOS_API_KEY; set it to the key that WorkOS gave"

    def production_problems(self) -> Iterator[Problem]:
        """Report providers for which others could answer."""
        for variable, url in (("OA_OIDC_ISSUER", self.oidc_issuer), ("OA_WORKOS_URL", self.workos_url)):
            if url and urlsplit(url).scheme != "https":
                yield variable, f"{variable} is no https URL, so that others could answer for the provider; use https"

    def rule(self) -> ProviderRule:
        """The rule in the form that sign-in takes."""
        return ProviderRule(self.redirects, self.loopback, self.link_domains, self.codes_too)
