"""The ways out of the cluster that the policies leave: each for the one service that needs it, and no others."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import kubernetes_validate
import pytest

from oa_platform.config.loading import load
from services.control.provider_config import ProviderSettings
from tests.deploy.manifests import NEWEST, NO_RENDERER, Document, config_maps, name_of, of_kind, render, renderer
from tests.house.files import REPO

pytestmark = pytest.mark.skipif(renderer() is None, reason=NO_RENDERER)

HTTPS = 443
MAIL = {"mail": "control"}
ARCHIVE = {"archive": "runtime"}
PROVIDER = {"identity-provider": "control"}


@pytest.fixture(scope="module")
def with_provider() -> list[Document]:
    """The policies of staging with an identity provider."""
    return [one for one in render(REPO / "tests" / "deploy" / "with_provider") if one["kind"] == "NetworkPolicy"]


def _ways_out(policies: Iterable[Document], port: int) -> dict[str, str]:
    """The policies by which pods reach this port of any address, and whose pods these are."""
    return {
        name_of(policy): policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
        for policy in policies
        for rule in policy["spec"].get("egress", ())
        if "to" not in rule and {"protocol": "TCP", "port": port} in rule["ports"]
    }


@pytest.mark.parametrize("version", NEWEST)
def test_kubernetes_takes_the_policies(with_provider: list[Document], version: str) -> None:
    for policy in with_provider:
        kubernetes_validate.validate(dict(policy), version, strict=True)


def test_control_reaches_the_provider_where_its_settings_say_it_is(with_provider: list[Document]) -> None:
    settings = load(ProviderSettings, {"OA_WORKOS_CLIENT_ID": "client_1", "OA_WORKOS_API_KEY": "key"})
    url = urlsplit(settings.workos_url)
    port = url.port or {"https": HTTPS}[url.scheme]
    assert _ways_out(with_provider, port) == ARCHIVE | PROVIDER


@pytest.mark.parametrize("overlay", ["staging", "prod"])
def test_runtime_reaches_the_archive_and_control_the_mail_relay(overlay: str) -> None:
    settings = {name: value for data in config_maps(overlay).values() for name, value in data.items()}
    assert settings["OA_ARCHIVE_URL"].startswith("s3://")
    policies = of_kind(overlay, "NetworkPolicy")
    assert _ways_out(policies, HTTPS) == ARCHIVE
    assert _ways_out(policies, int(settings.get("OA_SMTP_PORT", "587"))) == MAIL
