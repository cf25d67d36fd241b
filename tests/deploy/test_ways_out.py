"""The ways out of the cluster that the policies leave: each for the one service that needs it, and no others."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import pytest

from oa_platform.config.loading import describe, load
from services.control.config import ControlSettings
from services.control.provider_config import ProviderSettings
from services.khala_gateway.config import GatewaySettings
from services.projector.config import ProjectorSettings
from services.runtime.config import RuntimeSettings
from tests.deploy.kubernetes import taken_by_kubernetes
from tests.deploy.manifests import (
    NEWEST,
    NO_RENDERER,
    Document,
    config_maps,
    containers_of,
    name_of,
    of_kind,
    render,
    renderer,
)
from tests.house.files import REPO

pytestmark = pytest.mark.skipif(renderer() is None, reason=NO_RENDERER)

HTTPS = 443
MAIL = {"mail": "control"}
ARCHIVE = {"archive": "runtime"}
PROVIDER = {"identity-provider": "control"}
NATS = 4222
"""Where a NATS server listens."""
SERVICES = {
    "control": ControlSettings,
    "khala-gateway": GatewaySettings,
    "projector": ProjectorSettings,
    "runtime": RuntimeSettings,
}


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
        taken_by_kubernetes(policy, version)


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


@pytest.fixture(scope="module")
def with_nats() -> tuple[Document, ...]:
    """Staging with a NATS server."""
    return render(REPO / "tests" / "deploy" / "with_nats")


@pytest.mark.parametrize("version", NEWEST)
def test_kubernetes_takes_what_is_for_nats(with_nats: tuple[Document, ...], version: str) -> None:
    for one in with_nats:
        if one["kind"] in ("NetworkPolicy", "Deployment"):
            taken_by_kubernetes(one, version)


def test_the_services_that_know_the_nats_server_reach_it_and_get_its_url_and_no_others(
    with_nats: tuple[Document, ...],
) -> None:
    know_it = [name for name, of in SERVICES.items() if any("_NATS_URL" in one.variable for one in describe(of))]
    (policy,) = (one for one in with_nats if one["kind"] == "NetworkPolicy" and name_of(one) == "nats")
    (egress,) = policy["spec"]["egress"]
    assert egress == {"ports": [{"protocol": "TCP", "port": NATS}]}
    assert policy["spec"]["podSelector"]["matchExpressions"][0]["values"] == know_it
    secrets = {
        name_of(one): [
            source["secretRef"]["name"]
            for container in containers_of(one)
            for source in container.get("envFrom", ())
            if source.get("secretRef", {}).get("name", "").startswith("openagents-nats")
        ]
        for one in with_nats
        if one["kind"] == "Deployment"
    }
    assert {name: found for name, found in secrets.items() if found} == {
        name: [f"openagents-nats-of-{name}"] for name in know_it
    }
