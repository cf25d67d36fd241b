"""The settings of `oa`, and the site and files that they select."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from apps.worker.work_settings import WorkSettings
from oa_client.cpython.files import ClientHome
from oa_client.cpython.site import Site
from oa_localstack.installation.ports import Ports
from oa_localstack.installation.state import StackState, read_state
from oa_localstack.settings import NEAREST_HOME
from oa_platform.config.loading import group, load, setting
from oa_platform.config.parsers import Secret, boolean, choice, http_url, path, proxy_url, secret_text, text

COMMANDS_OF_PEOPLE = (
    "`oa login`, `oa logout`, `oa session`, `oa account`, `oa org`, `oa member`, `oa invitation` and `oa demo`"
)
"""The commands for which a key is no use: they act as the signed-in person."""


@dataclass(frozen=True, kw_only=True)
class CliSettings:
    """The command line program."""

    home: Path = setting("OA_HOME", path(), NEAREST_HOME, doc="Folder of the local stack's data, secrets and logs.")
    control_url: str | None = setting(
        "OA_CONTROL_URL", http_url(), None, doc="URL of the public edge. Defaults to the local stack's."
    )
    khala_url: str = setting(
        "OA_KHALA_URL", text(1024), "", doc="URL of Khala. Defaults to the address that control returns."
    )
    client_home: Path | None = setting(
        "OA_CLIENT_HOME",
        path(),
        None,
        doc="Folder of the client's tokens and watermarks. Defaults to `client` in OA_HOME for the local stack, "
        "and otherwise to the user's configuration folder.",
    )
    api_key: Secret | None = setting(
        "OA_API_KEY",
        secret_text("an API key, oak_…"),
        None,
        doc="A service account's key or a personal access token. Every command then acts as that account or person and "
        f"needs no session, except {COMMANDS_OF_PEOPLE}.",
    )
    proxy: Secret | None = setting(
        "OA_PROXY",
        proxy_url(),
        None,
        doc="HTTP proxy for remote sites: for the edge, Khala and a worker's stream, never for loopback. "
        "`http_proxy` and similar variables are ignored.",
    )
    ca_file: Path | None = setting(
        "OA_CA_FILE",
        path(),
        None,
        doc="Certificates of authorities (PEM) to trust in addition to the public ones, for sites with an "
        "authority of their own.",
    )
    compress: bool = setting(
        "OA_COMPRESS",
        boolean(),
        False,
        doc="Ask gateways to compress messages (permessage-deflate), for slow connections.",
    )
    work: WorkSettings = group(WorkSettings)
    codex_program: str = setting(
        "OA_CODEX_PROGRAM",
        text(1024),
        "codex",
        doc="Name or path of the Codex program, for `oa worker start --adapter codex`.",
    )
    codex_sandbox: str = setting(
        "OA_CODEX_SANDBOX",
        choice("read-only", "workspace-write", "danger-full-access"),
        "workspace-write",
        doc="Widest Codex sandbox that a run may request.",
    )
    debug: bool = setting("OA_DEBUG", boolean(), False, doc="Show the traceback of an unexpected error.")


def load_settings(env: Mapping[str, str]) -> CliSettings:
    """Read the settings; raises Refusal(invalid_setting) naming every wrong variable."""
    return load(CliSettings, env)


def running_stack(settings: CliSettings) -> StackState | None:
    """Return the local stack, if one runs."""
    state = read_state(settings.home.absolute())
    return state if state is not None and state.is_alive() else None


def control_url(settings: CliSettings, env: Mapping[str, str]) -> str:
    """Return the URL that is set, or that of the running local stack, or the one where a local stack would listen.

    Raises Refusal(invalid_setting) for invalid ports.
    """
    if settings.control_url:
        return settings.control_url
    stack = running_stack(settings)
    if stack is not None and "control" in stack.urls:
        return stack.urls["control"]
    return f"http://127.0.0.1:{Ports.from_env(env).control_http}"


def stack_missing_at(settings: CliSettings, env: Mapping[str, str]) -> str:
    """Return where the local stack would listen if commands go to it and it does not run; otherwise an empty text."""
    is_meant = settings.control_url is None
    return control_url(settings, env) if is_meant and running_stack(settings) is None else ""


def client_home(settings: CliSettings) -> Path:
    """Return the folder of the client's files. That of a local stack is in the stack's home, so that `make clean`
    removes both together."""
    if settings.client_home is not None:
        return settings.client_home
    if settings.home.is_dir() and _is_local(settings):
        return settings.home.absolute() / "client"
    return Path(platformdirs.user_config_dir("openagents"))


def _is_local(settings: CliSettings) -> bool:
    """Return whether the site is the local stack's: no URL is set, or the one that is set is the stack's."""
    if settings.control_url is None:
        return True
    stack = read_state(settings.home.absolute())
    return stack is not None and stack.urls.get("control", "").rstrip("/") == settings.control_url.rstrip("/")


def open_site(settings: CliSettings, env: Mapping[str, str], *, as_person: bool = False) -> Site:
    """Return the site that the settings name, with the API key if one is set.

    `as_person`: for the signed-in person, whether or not a key is set.
    """
    api_key = settings.api_key.reveal() if settings.api_key and not as_person else ""
    proxy = settings.proxy.reveal() if settings.proxy else ""
    url = control_url(settings, env)
    home = ClientHome(client_home(settings))
    return Site(
        home,
        url,
        khala_url=settings.khala_url,
        proxy=proxy,
        ca_file=settings.ca_file,
        api_key=api_key,
        compress=settings.compress,
    )
