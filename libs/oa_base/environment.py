"""Settings of a program that works with one site: clients, workers and `oa` use the same variables."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from oa_base.refusal import Refusal

_PORTS = {"http": 80, "https": 443}
# What OpenSSL and gRPC say of an authority that they don't know; an expired certificate, or one of another host, is
# trusted no more with another file.
_UNKNOWN_AUTHORITY = re.compile("CERTIFICATE_VERIFY_FAILED.*(unable to get|self.signed)")


def secret_text(env: Mapping[str, str], variable: str) -> str:
    """A secret: the variable's text, or that of the file that the variable with `_FILE` appended names; else "".

    Raises ValueError for a file that can't be read or is empty, and if both are set: one of them would be a mistake.
    """
    text, file_variable = env.get(variable, ""), f"{variable}_FILE"
    if not env.get(file_variable):
        return text
    if text:
        raise ValueError(f"{variable} and {file_variable} are both set; unset one of them")
    try:
        text = Path(env[file_variable]).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        text = f"{file_variable} names a file that can't be read ({type(error).__name__}); name one that can"
        raise ValueError(text) from None
    if not text:
        raise ValueError(f"{file_variable} names a file that is empty; write the secret into it, or unset the variable")
    return text


def with_trust_advice(said: str) -> str:
    """Return what a library said of a connection that failed, with what helps if the site's authority is unknown."""
    if not _UNKNOWN_AUTHORITY.search(said):
        return said
    return f"{said}; set OA_CA_FILE, or `ca_file` in Python, if the site has an authority of its own"


def with_port(proxy: str) -> str:
    """Return the URL of an HTTP proxy with its port written out. gRPC would take 443 where the others take 80."""
    parts = urlsplit(proxy)
    if parts.port is not None or parts.scheme not in _PORTS:
        return proxy
    return parts._replace(netloc=f"{parts.netloc.removesuffix(':')}:{_PORTS[parts.scheme]}").geturl()


def without_password(url: str) -> str:
    """Return the URL without a name and a password, for a message."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


class ApiKey:
    """The API key of a program that may outlive it: a key in a file is read again for each use, so that a program takes
    the next key without a restart when its key has been rotated.
    """

    def __init__(self, text: str, file: Path | None = None) -> None:
        """`text`: the key now. `file`: where it was read, and where the next one will be; None for a key that stays."""
        self._text = text
        self._file = file

    def current(self) -> str:
        """Return the key in the file; while it can't be read, or is empty, the last one that it had."""
        if self._file is not None:
            with contextlib.suppress(OSError, UnicodeDecodeError):
                self._text = self._file.read_text("utf-8").strip() or self._text
        return self._text


@dataclass(frozen=True)
class SiteAccess:
    """The site, the identity, and the way to the site."""

    control_url: str
    api_key: str
    proxy: str = ""
    ca_file: Path | None = None
    api_key_file: Path | None = None
    """Where the key was read, if it was in a file."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """From OA_CONTROL_URL, OA_API_KEY, OA_PROXY and OA_CA_FILE; key and proxy may be in files (`…_FILE`).

        Raises Refusal `invalid_setting`, naming the variable.
        """
        ca_file = env.get("OA_CA_FILE")
        control_url = _needed("OA_CONTROL_URL", env.get("OA_CONTROL_URL", ""))
        check_control_url(control_url)
        api_key = _needed("OA_API_KEY", _secret(env, "OA_API_KEY"))
        proxy = _secret(env, "OA_PROXY")
        check_proxy(proxy)
        return cls(control_url, api_key, proxy, Path(ca_file) if ca_file else None, api_key_file(env))


def api_key_file(env: Mapping[str, str]) -> Path | None:
    """The file that OA_API_KEY_FILE names."""
    file = env.get("OA_API_KEY_FILE")
    return Path(file) if file else None


def check_control_url(control_url: str) -> int:
    """The port. Raises Refusal `invalid_setting` for what is no http(s) URL of a host."""
    port = _port_of(control_url)
    if port is None:
        shown = "this" if "@" in control_url else repr(control_url)  # a password may stand before the @
        message = f"{shown} is no URL of a control plane; one is http://127.0.0.1:8080"
        raise Refusal("invalid_setting", message, field="OA_CONTROL_URL")
    return port


def check_proxy(proxy: str) -> None:
    """Raise Refusal `invalid_setting` for what is no http(s) URL of a proxy; nothing is none."""
    if proxy and _port_of(proxy) is None:  # not shown: it may hold a password
        text = "OA_PROXY is no URL of a proxy; one is http://proxy.example.com:3128"
        raise Refusal("invalid_setting", text, field="OA_PROXY")


def check_khala_url(khala_url: str) -> None:
    """Raise Refusal `invalid_setting` for what is no ws(s) URL of a gateway; nothing is none."""
    scheme, rest = khala_url.partition("://")[::2]
    if khala_url and (scheme not in ("ws", "wss") or _port_of(f"http://{rest}") is None):
        text = "OA_KHALA_URL is no URL of a gateway; one is wss://khala.example.com/khala/v1/ws"
        raise Refusal("invalid_setting", text, field="OA_KHALA_URL")


def _port_of(url: str) -> int | None:
    try:
        parts = urlsplit(url)
        if parts.scheme in _PORTS and parts.hostname:
            return parts.port or _PORTS[parts.scheme]
    except ValueError:  # a port that is none, or half of an IPv6 address
        pass
    return None


def _needed(variable: str, value: str) -> str:
    if not value:
        raise Refusal("invalid_setting", f"{variable} is not set; set it for this program", field=variable)
    return value


def _secret(env: Mapping[str, str], variable: str) -> str:
    try:
        return secret_text(env, variable)
    except ValueError as error:
        raise Refusal("invalid_setting", str(error), field=f"{variable}_FILE") from None
