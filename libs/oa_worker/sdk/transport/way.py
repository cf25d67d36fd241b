"""The way to a host: direct, or through the proxy that was set; never through one that the environment names."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping

from oa_base.environment import with_port, without_password

_UNUSED = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")


class Way:
    """`proxy` is the URL to go through, empty for none (always for loopback); `words` are for the error of a call."""

    def __init__(self, proxy: str, host: str, env: Mapping[str, str] = os.environ) -> None:
        near = _is_loopback(host)
        self.proxy = "" if near else with_port(proxy)
        self.words = "" if near else _words(proxy, env)

    def channel_options(self) -> list[tuple[str, int | str]]:
        """Options for gRPC, which takes a proxy from the environment unless told otherwise, also for loopback."""
        if self.proxy:
            return [("grpc.enable_http_proxy", 1), ("grpc.http_proxy", self.proxy)]
        return [("grpc.enable_http_proxy", 0)]


def _words(proxy: str, env: Mapping[str, str]) -> str:
    if proxy:
        return f" through the proxy {without_password(with_port(proxy))}"
    unused = next((name for name in _UNUSED if env.get(name)), "")
    return f" without a proxy ({unused} is not used; OA_PROXY of `oa`, or `proxy` here, is)" if unused else ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
