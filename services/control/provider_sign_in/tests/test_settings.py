"""Settings of identity providers, as somebody writes them."""

from __future__ import annotations

import pytest

from oa_base.refusal import Refusal
from oa_platform.config.loading import load
from services.control.provider_config import ProviderSettings

OIDC = {"OA_OIDC_ISSUER": "https://login.example.org/", "OA_OIDC_CLIENT_ID": "openagents"}


def test_they_are_meant_as_they_are_written() -> None:
    redirects = "https://app.example.org/signed-in, http://127.0.0.1:5173/"
    env = OIDC | {"OA_SIGN_IN_REDIRECTS": redirects, "OA_SIGN_IN_LINK_DOMAINS": "Corp.Example"}
    env |= {"OA_SIGN_IN_BY_CODE": "0"}
    settings = load(ProviderSettings, env)
    assert settings.oidc_issuer == "https://login.example.org/", "the slash is part of it"
    assert settings.rule().redirects == {"https://app.example.org/signed-in", "http://127.0.0.1:5173/"}
    assert settings.rule().link_domains == {"corp.example"}
    assert not settings.rule().codes_too
    assert not list(settings.production_problems())


@pytest.mark.parametrize(
    ("env", "variable"),
    [
        ({"OA_OIDC_ISSUER": "https://login.example.org"}, "OA_OIDC_CLIENT_ID"),
        ({"OA_OIDC_ISSUER": "login.example.org"}, "OA_OIDC_ISSUER"),
        ({"OA_OIDC_ISSUER": "https://login.example.org?x=1"}, "OA_OIDC_ISSUER"),
        ({"OA_WORKOS_CLIENT_ID": "client_1"}, "OA_WORKOS_API_KEY"),
        ({"OA_SIGN_IN_REDIRECTS": "https://app.example.org/#x"}, "OA_SIGN_IN_REDIRECTS"),
        ({"OA_SIGN_IN_REDIRECTS": "app.example.org"}, "OA_SIGN_IN_REDIRECTS"),
        ({"OA_SIGN_IN_LINK_DOMAINS": "*"}, "OA_SIGN_IN_LINK_DOMAINS"),
        ({"OA_SIGN_IN_BY_CODE": "0"}, "OA_SIGN_IN_BY_CODE"),
    ],
)
def test_what_cannot_be_meant_stops_the_start(env: dict[str, str], variable: str) -> None:
    with pytest.raises(Refusal) as refused:
        load(ProviderSettings, env)
    assert refused.value.field == variable


def test_production_asks_no_provider_that_others_could_answer_for() -> None:
    env = OIDC | {"OA_OIDC_ISSUER": "http://login.example.org", "OA_WORKOS_URL": "http://workos.example.org"}
    problems = load(ProviderSettings, env).production_problems()
    assert [variable for variable, _ in problems] == ["OA_OIDC_ISSUER", "OA_WORKOS_URL"]
