"""A service calls what its settings name, and never through a proxy that happens to be in its environment.

Libraries take `http_proxy` and its like from there unasked (gRPC also for loopback); so a service forgets them, for all
that it and its libraries call.
"""

from __future__ import annotations

from collections.abc import MutableMapping

NO_PROXY_OPTION = ("grpc.enable_http_proxy", 0)
"""For channels that are made where the environment still has a proxy."""
_VARIABLES = {"http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "ftp_proxy"}


def forget_proxies(environment: MutableMapping[str, str]) -> None:
    """Take every proxy out of the environment, in both letter cases."""
    for name in [name for name in environment if name.lower() in _VARIABLES]:
        del environment[name]
